# docs
dist_doc_DATA = \
	README.md \
	hw-fixtures/rig/rig.conf.example \
	%D%/client-protocol.md \
	%D%/connection-strings.md \
	%D%/kd-protocol.md \
	%D%/kdnet.md \
	%D%/kdsrv.service \
	%D%/usb.md
dist_man_MANS += \
	%D%/kd.1 \
	%D%/kdcap.1 \
	%D%/kdloop.1 \
	%D%/kdsrv.8 \
	%D%/kdtarget.1
