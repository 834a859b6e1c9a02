# What a lab installs: udev rules and a nightly test.
EXTRA_DIST += %D%/README.md %D%/kdloop-rig.service.in
if INSTALL_UDEV
dist_udevrules_DATA = %D%/70-kdsrv.rules
else
EXTRA_DIST += %D%/70-kdsrv.rules
endif
CLEANFILES += %D%/kdloop-rig.service
if INSTALL_SYSTEMD
systemdsystemunit_DATA = %D%/kdloop-rig.service
dist_systemdsystemunit_DATA = %D%/kdloop-rig.timer
else
EXTRA_DIST += %D%/kdloop-rig.timer
endif
%D%/kdloop-rig.service: %D%/kdloop-rig.service.in Makefile
	$(AM_V_GEN)$(MKDIR_P) %D% && \
		$(SED) 's|@bindir@|$(bindir)|g' '$(srcdir)/%D%/kdloop-rig.service.in' >$@.tmp && \
		mv $@.tmp $@
