#!/bin/sh
# Runs one command for guestrun.py, which is at the other end of standard input
# and output: a line of base64 comes, then what the command is to read. Back go
# "pid N", what it writes, with a byte 01 in front of each line of its standard
# error, and 02 "exit N". SPDX-License-Identifier: MIT
script=/tmp/agent.$$
read -r line
echo "$line" | base64 -d >"$script"
mkfifo "$script.err"
while IFS= read -r text; do
	printf '\001%s\n' "$text"
done <"$script.err" &
filter=$!
# The child says it, as nothing that it writes may come before.
sh -c 'echo "pid $$" && exec sh "$1"' - "$script" <&0 2>"$script.err" &
wait $!
status=$?
wait $filter
rm -f "$script" "$script.err"
printf '\002exit %d\n' $status
