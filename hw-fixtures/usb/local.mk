# The emulated USB debug device: the model, which front ends show to a host.
noinst_LIBRARIES += libusbdevice.a
EXTRA_DIST += %D%/README.md
libusbdevice_a_SOURCES = \
	%D%/cable.c %D%/cable.h \
	%D%/command.c %D%/command.h \
	%D%/descriptors.c \
	%D%/device.c %D%/device.h
