# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# say.sh: how our scripts speak. Sourced, never run. Colour only on a terminal and without NO_COLOR.
# Progress and notes go to stdout, complaints to stderr.

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
    say_bold=$'\e[1m' say_dim=$'\e[2m' say_red=$'\e[31m' say_green=$'\e[32m' say_plain=$'\e[0m'
else
    say_bold='' say_dim='' say_red='' say_green='' say_plain=''
fi

say() { printf '%s\n' "$*"; }
say_title() { printf '\n%s%s%s\n' "$say_bold" "$*" "$say_plain"; }
say_note() { printf '%s%s%s\n' "$say_dim" "$*" "$say_plain"; }
say_good() { printf '%s%s%s\n' "$say_green" "$*" "$say_plain"; }
say_bad() { printf '%s%s%s\n' "$say_red" "$*" "$say_plain" >&2; }

# Print a complaint that names the mend, and stop.
die() {
    say_bad "${0##*/}: $*"
    exit 1
}

# A wrong call: complain and exit 2.
usage_error() {
    say_bad "${0##*/}: $*"
    say_bad "Try '${0##*/} --help'."
    exit 2
}
