# Tests of kd/
