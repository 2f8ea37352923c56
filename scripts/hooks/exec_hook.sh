#!/bin/sh
# A hook as a shell script, to be copied and changed. Needs jq for the JSON on standard input.
#
#     smtp-hook: exec:///usr/local/lib/mtaq/exec_hook.sh
#
# The point stands in $1. Exit status 0 accepts, 77 rejects, 99 drops; any other has the client try again.

set -eu

case "$1" in
sender)
    if [ "$(jq -r '.client.helo')" = spam.example ]; then
        echo '{"text": "not from there"}'
        exit 77
    fi
    ;;
recipient)
    if jq -e '.recipient | endswith("@moved.example")' >/dev/null; then
        echo '{"code": 551, "status": "5.1.6", "text": "moved, ask the postmaster"}'
        exit 77
    fi
    ;;
message)
    # Prints the message that it was given, with one more tag.
    jq -c '.tags += ["seen by a shell script"]'
    ;;
esac
