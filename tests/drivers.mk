# Tests of drivers/
