# A Linux guest for the tests: kernel, initramfs, and programs run in it.
dist_noinst_SCRIPTS += %D%/agent.sh %D%/guestrun.py %D%/init.sh %D%/mkguest.py %D%/run-guest.sh
EXTRA_DIST += %D%/README.md
