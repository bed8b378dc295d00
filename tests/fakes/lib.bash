# Shared by the fake tools of this directory. See README.md for the state directory and the rules.
#
# A fake is called through a link STATE/bin/TOOL, so it finds its state beside itself and needs no environment:
# the engine runs its tools with an empty one.
set -uo pipefail
export LC_ALL=C PATH=${PATH:-/usr/sbin:/usr/bin:/sbin:/bin}

TOOL=${0##*/}
STATE=$(cd -P -- "$(dirname -- "$0")/.." && pwd) || exit 70
HERE=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
[ -e "$STATE/kind" ] || { echo "$TOOL (fake): $STATE is not a state directory; make one with gpu-node or slurm-client" >&2; exit 70; }

# get FILE [DEFAULT]: one value of the state
get() { local v=; { read -r v <"$STATE/$1"; } 2>/dev/null || [ -n "$v" ] || v=${2-}; printf '%s' "$v"; }
# put FILE VALUE: replaces it in one step, so that a reader never sees half of it
put() { printf '%s\n' "$2" >"$STATE/$1.$$" && mv -f "$STATE/$1.$$" "$STATE/$1"; }

log() { # FILE WORDS...: one line, written in one piece
  local file=$1 line=$EPOCHREALTIME$'\t'$$$'\t'$TOOL w; shift
  for w in "$@"; do line+=$'\t'; [[ $w == *[![:print:]]* || -z $w ]] && w=${w@Q}; line+=$w; done
  printf '%s\n' "$line" >>"$STATE/$file"
}

# An argv that nobody taught this fake: recorded, loud, and never a success.
unexpected() {
  log unexpected.log "$@"
  printf '%s (fake): UNEXPECTED ARGUMENTS: %s\n' "$TOOL" "${*@Q}" >&2
  exit 64
}

nap() { # SECONDS, without a child process that could be left behind
  local x; read -r -t "$1" x <>"$STATE/never" || true
}
barrier() { # says that it was reached and waits for the go; nobody is kept for more than a minute
  local end=$((SECONDS + 60))
  : >"$STATE/barrier.$1.reached"
  until [ -e "$STATE/barrier.$1.go" ]; do
    [ $SECONDS -lt $end ] || { log unexpected.log "barrier $1 was never opened"; exit 99; }
    nap 0.02
  done
}
hook() { # FILE ARGS...: a test's own script, in the middle of a call
  local f=$1; shift
  STATE=$STATE "$f" "$@" >>"$STATE/hook.log" 2>&1 </dev/null || log unexpected.log "hook $f failed with $?"
}
garbage() { printf 'NodeName=\377\376\001 {"a": [1, \n%%%%%%%%\tError?? 0x7ffffffffffffff0 <<<NULL>>> \033[31m\n|||\n'; }

take_rule() { # ARGV: prints the action for this call and uses it up
  [ -s "$STATE/script" ] || return 0
  (
    flock 7
    found=
    while IFS=$'\t' read -r tool pattern count action; do
      # shellcheck disable=SC2053  # the pattern is a glob on purpose
      if [ -z "$found" ] && [ "$tool" = "$TOOL" ] && [[ $1 == $pattern ]]; then
        case $count in
          '*') found=$action ;;
          @1|1) found=$action; continue ;;
          @*) count=@$((${count#@} - 1)) ;;       # @3: the third match only
          *) found=$action; count=$((count - 1)) ;;
        esac
      fi
      printf '%s\t%s\t%s\t%s\n' "$tool" "$pattern" "$count" "$action"
    done <"$STATE/script" >"$STATE/script.new"
    mv -f "$STATE/script.new" "$STATE/script"
    printf '%s' "$found"
  ) 7>>"$STATE/lock"
}

hang() { while :; do nap 3600; done; }

# run FUNCTION ARGS...: the call, as the script of this state directory wants it to go
run() {
  local func=$1 action rest out rc; shift
  log calls.log "$@"
  action=$(take_rule "$*")
  [ -z "$action" ] || log rules.log "$action" "$@"
  rest=${action#* }; [ "$rest" != "$action" ] || rest=
  case ${action%% *} in
    '') "$func" "$@"; exit ;;
    slow) nap "$rest"; "$func" "$@"; exit ;;
    hang) hang ;;
    hang-hard) trap '' TERM INT HUP; hang ;;
    garbage) garbage; exit 0 ;;
    empty) exit 0 ;;
    exit) rc=${rest%% *}; [ "$rest" = "$rc" ] || printf '%s\n' "${rest#* }" >&2; exit "$rc" ;;
    say) rc=${rest%% *}; printf '%b\n' "${rest#* }"; exit "$rc" ;;
    killed) kill -KILL $$ ;;
    flood) while :; do printf '%4096s\n' x || exit 141; done ;;
    barrier) barrier "$rest"; "$func" "$@"; exit ;;
    hook) hook "$rest" "$@"; "$func" "$@"; exit ;;
    then-*)  # the real thing happens first; only what the caller sees of it is broken
      out=$( ("$func" "$@" 2>"$STATE/stderr.$$"); echo "$?."); rc=${out##*$'\n'}; rc=${rc%.}
      case ${action%% *} in
        then-hang) rm -f "$STATE/stderr.$$"; hang ;;
        then-hang-hard) rm -f "$STATE/stderr.$$"; trap '' TERM INT HUP; hang ;;
        then-killed) rm -f "$STATE/stderr.$$"; kill -KILL $$ ;;
        then-garbage) rm -f "$STATE/stderr.$$"; garbage; exit 0 ;;
        then-empty) rm -f "$STATE/stderr.$$"; exit 0 ;;
        then-exit) rm -f "$STATE/stderr.$$"; rc=${rest%% *}; [ "$rest" = "$rc" ] || printf '%s\n' "${rest#* }" >&2; exit "$rc" ;;
        then-slow) nap "$rest" ;;
        then-barrier) barrier "$rest" ;;
        then-hook) hook "$rest" "$@" ;;
        *) unexpected "unknown action in script: $action" ;;
      esac
      printf '%s' "${out%"$rc."}"; cat "$STATE/stderr.$$" >&2; rm -f "$STATE/stderr.$$"; exit "$rc" ;;
    *) unexpected "unknown action in script: $action" ;;
  esac
}
