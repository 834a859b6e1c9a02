# Tests of kdproto/
