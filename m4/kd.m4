# KD_CC_FLAG(FLAG, VARIABLE): appends FLAG to VARIABLE if the compiler takes it.
AC_DEFUN([KD_CC_FLAG], [
	AS_VAR_PUSHDEF([cache], [kd_cv_cc_flag_$1])
	AC_CACHE_CHECK([whether $CC accepts $1], [cache], [
		kd_save_CFLAGS=$CFLAGS
		CFLAGS="$CFLAGS -Werror $1"
		AC_COMPILE_IFELSE([AC_LANG_PROGRAM()], [AS_VAR_SET([cache], [yes])],
			[AS_VAR_SET([cache], [no])])
		CFLAGS=$kd_save_CFLAGS
	])
	AS_VAR_IF([cache], [yes], [$2="$$2 $1"])
	AS_VAR_POPDEF([cache])
])

# KD_DRIVER(NAME, PREFIX, PKG-CONFIG-MODULES, WHAT): adds --with-NAME=yes|no|auto.
# Sets the conditional DRIVER_PREFIX, defines KD_DRIVER_PREFIX, and leaves
# PREFIX_CFLAGS and PREFIX_LIBS. An empty module list is always there.
AC_DEFUN([KD_DRIVER], [
	AC_ARG_WITH([$1],
		[AS_HELP_STRING([--with-$1=yes|no|auto], [driver for $4 @<:@auto@:>@])],
		[], [with_$1=auto])
	kd_have=no
	AS_IF([test "x$with_$1" != xno], [
		m4_if([$3], [], [kd_have=yes],
			[PKG_CHECK_MODULES([$2], [$3], [kd_have=yes], [
				AS_IF([test "x$with_$1" = xyes],
					[AC_MSG_ERROR([--with-$1 needs $3])])])])
	])
	AS_IF([test "x$kd_have" = xyes],
		[AC_DEFINE([KD_DRIVER_$2], [1], [Define if the $1 driver is built.])
		kd_driver_summary="$kd_driver_summary $1"],
		[kd_driver_summary="$kd_driver_summary ($1: left out)"])
	AM_CONDITIONAL([DRIVER_$2], [test "x$kd_have" = xyes])
])
