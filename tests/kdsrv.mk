# Tests of kdsrv/
