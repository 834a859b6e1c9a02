# Tests of transport/
