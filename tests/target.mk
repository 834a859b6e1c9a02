# Tests of hw-fixtures/target/
TESTS += %D%/target/kdtarget_session.py
dist_check_SCRIPTS += %D%/target/kdtarget_session.py
EXTRA_DIST += %D%/target/kdhost.py %D%/target/tap.py
