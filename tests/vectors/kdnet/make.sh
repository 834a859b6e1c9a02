#!/bin/sh
# Makes the KDNET vectors with the openssl program alone, so that nothing of
# this project checks itself: tests/vectors/kdnet/make.sh > vectors.txt
# Every value is made up. SPDX-License-Identifier: MIT
set -eu

# Words of a key, most significant digit first as people write them, become
# 8 bytes each, least significant first.
key_bytes()
{
	python3 - "$1" <<'EOF'
import sys
print(''.join(int(w, 36).to_bytes(8, 'little').hex() for w in sys.argv[1].split('.')))
EOF
}

bin()
{
	printf '%s' "$1" | sed 's/../\\x&/g' | xargs -0 printf '%b'
}

complement()
{
	printf '%s' "$1" | tr 0123456789abcdef fedcba9876543210
}

zeros()
{
	[ "$1" = 0 ] || printf '00%.0s' $(seq "$1")
}

# seal NAME KEY MACKEY VERSION TYPE SEQ DIRECTION(00|80) BODY [FLAGS]
seal()
{
	n=$((${#8} / 2))
	pad=$(((16 - (8 + n) % 16) % 16))
	flags=${9:-$(printf '%02x' $((0x$7 | pad)))}
	plain=$(printf '%014x' "$6")$flags$8$(zeros $pad)
	header=4d444247$4$5
	tag=$(bin "$header$plain" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$3" -r |
		cut -c1-32)
	cipher=$(bin "$plain" | openssl enc -aes-256-cbc -nopad -K "$2" -iv "$tag" |
		od -An -v -tx1 | tr -d ' \n')
	echo "$1 $4 $5 $6 $7 ${8:--} $header$cipher$tag"
}

# session NAME KEYTEXT VERSION: a poke, its response and data of all paddings.
session()
{
	ck=$(key_bytes "$2")
	hk=$(complement "$ck")
	nonce=$(printf '%s' "$1 target" | openssl dgst -sha256 -r | cut -c1-64)
	host=$(printf '%s' "$1 host" | openssl dgst -sha256 -r | cut -c1-64)
	target_address=00000000000000000000ffff0a0900020001
	host_address=00000000000000000000ffff0a090001c350
	poke=0101$nonce$target_address$host_address$(zeros 10)ffff$(zeros 6)$(zeros 256)
	response=0102$nonce$host$(zeros 256)
	dk=$(bin "$ck$response" | openssl dgst -sha256 -r | cut -c1-64)

	echo "session $1 $2 $ck $dk"
	seal poke "$ck" "$hk" "$3" 01 3 00 "$poke"
	seal response "$ck" "$hk" "$3" 01 3 80 "$response"
	seal host-poke "$ck" "$hk" "$3" 01 1 80 ""
	seal ping "$dk" "$hk" "$3" 00 1 00 00000000000000000100090a
	seal break-in "$dk" "$hk" "$3" 00 1 80 62
	seal resend "$dk" "$hk" "$3" 00 72057594037927935 80 69696969050000000000000000000000
	for n in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17; do
		body=$(printf '%s' "$1 $n" | openssl dgst -sha512 -r | head -c $((2 * n)))
		seal "pad-$n" "$dk" "$hk" "$3" 00 $((n + 2)) 00 "$body"
	done
	big=$(printf '%s' "$1 big" | openssl dgst -sha512 -r | cut -c1-128)
	seal big "$dk" "$hk" "$3" 00 4294967296 80 "$big$big$big$big$big$big$big$big$big"
	# The tag is right; the flags are not: a pad longer than what is there,
	# and bits that mean nothing.
	seal lie-pad "$ck" "$hk" "$3" 01 1 00 "$(zeros 8)" 09
	seal lie-pad "$ck" "$hk" "$3" 01 1 80 "$(zeros 8)" 8f
	seal lie-bits "$dk" "$hk" "$3" 00 1 00 "$(zeros 8)" 10
	seal lie-bits "$dk" "$hk" "$3" 00 1 80 "$(zeros 8)" c0
}

echo "# Made by make.sh. Lines: session NAME KEY CONTROL-KEY DATA-KEY, then"
echo "# NAME VERSION TYPE SEQ DIRECTION BODY DATAGRAM (- is an empty body)."
session short 1.2.3.4 02
session long 3w5e11264sgsf.0.z.10 04
session random 1q2w3e4r5t6y7.9o8i7u6y5t4r.0zz.2steg4fzbj2sz 05
