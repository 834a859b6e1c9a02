#!/bin/sh
# kdproto must link into a kernel: it may need memcpy, memmove, memset, memcmp
# and nothing else. The objects are built afresh, so that neither sanitizers nor
# hardening flags of this build add symbols of their own.
# SPDX-License-Identifier: MIT
: "${top_srcdir:=.}" "${top_builddir:=.}" "${CC:=cc}"

dir=$(mktemp -d) || exit 99
trap 'rm -rf "$dir"' EXIT
echo 1..3

report()
{
	if [ -z "$3" ]; then
		echo "ok $1 - $2"
	else
		echo "not ok $1 - $2"
		echo "$3" | sed 's/^/# /'
	fi
}

errors=
for source in "$top_srcdir"/kdproto/*.c; do
	object=$dir/$(basename "$source" .c).o
	out=$($CC -std=c17 -ffreestanding -O2 -fno-stack-protector -U_FORTIFY_SOURCE \
		-I"$top_srcdir" -c "$source" -o "$object" 2>&1) || errors="$errors$out"
done
report 1 "compiles as freestanding C" "$errors"

nm --defined-only -g "$dir"/*.o | awk 'NF == 3 { print $3 }' | sort -u > "$dir/defined"
nm -u "$dir"/*.o | awk '$1 == "U" { print $2 }' | sort -u > "$dir/needed"
printf '%s\n' memcmp memcpy memmove memset | sort -u - "$dir/defined" > "$dir/allowed"
foreign=$(comm -23 "$dir/needed" "$dir/allowed")
[ -s "$dir/defined" ] || foreign="no symbols at all: nm or the compiler failed"
report 2 "needs nothing but mem* and itself" "$foreign"

# The library of this build holds what was just looked at, and no more.
ar t "$top_builddir/libkdproto.a" | sed 's/^libkdproto_a-//' | grep '\.o$' | sort > "$dir/members"
ls "$dir" | grep '\.o$' | sort > "$dir/objects"
report 3 "libkdproto.a is made of these files" "$(comm -3 "$dir/members" "$dir/objects")"
