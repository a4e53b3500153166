//! What runs on the host: POSIX shell. `R` is the directory of the mirror, `K` a name for a new one, `I` what identifies the
//! one that is meant, `D` the digest of the last listing, `F` the format in which stat tells whether a file has changed, and `C`
//! what that has in addition where the time of the last change of any kind is known.

/// `into DIR`: goes into a directory below the tree, and only if no link leads there; whatever is renamed afterwards, the
/// names in it are of that directory then. The echo keeps line breaks at the end of a name. `identity`: the mark, and the
/// tree's inode with its time of birth where stat knows it, since the number of an inode may be used again.
pub(super) const COMMON: &str = r#"LC_ALL=C; export LC_ALL; umask 077
N='
'
into() { cd -P "$T" && { [ -z "$1" ] || cd -P "./$1"; } && [ "$(pwd -P; echo .)" = "$T${1:+/$1}$N." ]; }
identity() {
  set -- $(ls -di "$R/tree") && read -r k <"$R/mark" && printf '%s %s %s' "$k" "$1" "$(stat -c %W "$R/tree" 2>/dev/null)"
}
"#;

/// Prints fields that end with a NUL each: the identity, the kind of tools, then for each path three fields (kind, mode in
/// octal, size, time, time of the last change of any kind, names; path; target), kind `U` for what cannot be read. busybox's stat prints lines, so names with a line
/// break cannot be told there: kind `N`. At the end the status. Only [`SAME`] if all of that has the digest `D`: then what
/// was read here last, and has that digest, is what is there. Behind [`PACKED`] all of it is compressed, where the host can.
pub(super) const SCAN: &str = r#"if ! [ -d "$R/tree" ] || ! [ -r "$R/mark" ]; then printf 'gone\0'; exit 0; fi
cd -P "$R/tree" || exit 3
look() {
printf 'mirror\0'; identity; printf '\0'
if find . -maxdepth 0 -ignore_readdir_race -printf '' 2>/dev/null; then
  if tar --version 2>/dev/null | grep -q GNU && stat -c %.9Y . 2>/dev/null | grep -q '[.]'; then printf 'gnu\0'
  else printf 'mixed\0'; fi
  find . -ignore_readdir_race -mindepth 1 \( -type d ! \( -readable -executable \) -o -type f ! -readable \) -prune \
    -printf 'U\0%P\0\0' -o -printf '%y %m %s %T@ %C@ %n\0%P\0%l\0'
  printf 'end %s\0' $?
else
  printf 'busybox\0'
  s=0
  find . -mindepth 1 -name "*$N*" -prune -exec printf 'N\0%s\0\0' {} \; || s=1
  find . -mindepth 1 -name "*$N*" -prune -o -type l -exec sh -c \
    'for l do printf "l 0 0 0\0%s\0" "$l"; readlink "$l"; printf "\0"; done' sh {} + || s=1
  printf 'stat\0'
  find . -mindepth 1 -name "*$N*" -prune -o ! -type l -exec stat -c '%f %s %Y %Z %h %n' {} + || s=1
  printf '\0end %s\0' $s
fi
}
[ -n "$D" ] && d=$(look 2>/dev/null | sha256sum 2>/dev/null) && [ "${d%% *}" = "$D" ] && printf 'same\0' && exit 0
if command -v gzip >/dev/null 2>&1; then printf 'gzip\0'; look | gzip -1; else look; fi
"#;

/// The answer is compressed (RFC 1952) from here on.
pub(super) const PACKED: &[u8] = b"gzip\0";

/// The answer that means: what was read last.
pub(super) const SAME: &[u8] = b"same\0";

/// Reads a tar stream into a directory of its own: groups of files, and `plan`, which puts them in their places. `same`:
/// size and times of what the names have are as the plan says, before they are replaced or removed. A name is moved into the
/// current directory, since mv would go into a directory that a link of that name leads to. Modes of files are changed by
/// another name in the stage, where nobody can put a link in its place, and so are files that are written in place (`over`).
/// If that fails, for want of space for instance, the old content is written back.
pub(super) const SEND: &str = r#"mkdir -p "$R" && cd -P "$R" || exit 3
R=$(pwd -P); T=$R/tree
[ -z "$I" ] || [ "$(identity)" = "$I" ] || { echo 'the mirror is another one by now' >&2; exit 5; }
rm -rf "$R"/stage.*
S=$R/stage.$$
mkdir "$S" || exit 3
trap 'cd /; chmod -R u+rwx "$S" 2>/dev/null; rm -rf "$S"' 0
trap 'exit 1' HUP INT TERM
[ -s mark ] || echo "$K" >mark
tar -xpof - -C "$S" || exit 4
did() { echo "+ $1 $2"; }
same() {
  w=$F e=$1; shift; [ "$e" = '*' ] && return
  case "$e" in c*) w="$F $C" e=${e#c} ;; esac
  [ "$(stat -c "$w" "$@" 2>/dev/null)" = "$e" ]
}
put() {
  g=$1 i=$2 n=$3; shift 3; same "$@" || return; shift
  for f do shift; set -- "$@" "$S/$g/${f#./}"; done
  mv -f "$@" . && did $i $n
}
over() {
  g=$1 i=$2 m=$3; shift 3; same "$@" || return
  ln "$2" "$S/over" && [ -f "$S/over" ] && [ ! -L "$S/over" ] && cp -p "$S/over" "$S/old" &&
    if cat "$S/$g/${2#./}" >"$S/over"; then
      chmod "$m" "$S/over" && touch -r "$S/$g/${2#./}" "$S/over" && did $i 1
    else
      cat "$S/old" >"$S/over"; touch -r "$S/old" "$S/over"; false
    fi; s=$?
  rm -f "$S/over" "$S/old"; return $s
}
gone() { i=$1 n=$2; shift 2; same "$@" || return; shift; rm -f "$@" && did $i $n; }
gonedir() { rmdir "$2" && did $1 1; }
newdir() { mkdir -m "$2" "$3" && did $1 1; }
modedir() { into "$3" && chmod "$2" . && did $1 1; }
mode() {
  i=$1 m=$2; shift 2; same "$@" || return
  ln "$2" "$S/mode" && [ ! -L "$S/mode" ] && chmod "$m" "$S/mode" && did $i 1; s=$?
  rm -f "$S/mode"; return $s
}
fill() { [ ! -e "$T" ] && chmod "$1" "$S/tree" && mv "$S/tree" "$R" && echo filled; }
. "$S/plan"
printf '= '; identity
exit 0
"#;

/// Reads commands of `into` and `grab`, which print a line of 512 bytes and a tar archive each.
pub(super) const FETCH: &str = r#"R=$(cd -P "$R" && pwd -P) || exit 3
T=$R/tree
o=; if tar --version 2>/dev/null | grep -q GNU; then o='--format=gnu --hard-dereference'; fi
grab() { printf '%-511s\n' "dtunnel $1"; shift; tar -cf - $o "$@"; }
eval "$(cat)"
"#;

/// Containers may still have the directory mounted: its files go, too.
pub(super) const REMOVE: &str = r#"[ -d "$R" ] || exit 0
chmod -R u+rwx "$R" 2>/dev/null
rm -rf "$R"
"#;

/// Bytes as a word of a POSIX shell: in single quotes.
pub(super) fn quoted_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut word = vec![b'\''];
    for byte in bytes {
        match byte {
            b'\'' => word.extend(br"'\''"),
            byte => word.push(*byte),
        }
    }
    word.push(b'\'');
    word
}
