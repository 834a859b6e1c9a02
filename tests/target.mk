# Tests of hw-fixtures/target/
target_scripts = \
	%D%/target/baremetal_session.py \
	%D%/target/kdtarget_session.py
TESTS += $(target_scripts)
dist_check_SCRIPTS += $(target_scripts)
EXTRA_DIST += %D%/target/kdhost.py %D%/target/tap.py
