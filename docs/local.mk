# docs
EXTRA_DIST += \
	%D%/client-protocol.md \
	%D%/connection-strings.md \
	%D%/kd-protocol.md
dist_man_MANS += %D%/kd.1
dist_man_MANS += %D%/kdtarget.1
