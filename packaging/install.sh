#!/bin/sh
# Installs ringverb from a release archive, checks its SHA-256 sum, and needs no root: install.sh --help.
set -eu

usage() {
    cat <<'END'
Installs ringverb from a release archive, checks its SHA-256 sum, and needs no root.

  sh install.sh --from URL_OR_FOLDER [--version VERSION] [--prefix FOLDER] [--dry-run]
  sh install.sh --uninstall [--prefix FOLDER]
  curl -fsSL URL/install.sh | sh -s -- --from URL

URL_OR_FOLDER is where ringverb-VERSION-ARCH-linux.tar.gz and SHA256SUMS are. Without --version the sums name the
archive. The prefix is ~/.local, or /usr/local for root. Nothing is changed outside of the prefix; no service is
started.

It needs Linux with glibc 2.28 or newer on x86_64 or aarch64; tar, gzip and sha256sum; for a URL curl or wget.
END
}

die() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

from=
version=
prefix=
dry_run=no
uninstall=no
while [ $# -gt 0 ]; do
    case $1 in
        --from | --version | --prefix)
            [ $# -ge 2 ] || die "$1 needs a value"
            case $1 in
                --from) from=${2%/} ;;
                --version) version=$2 ;;
                --prefix) prefix=$2 ;;
            esac
            shift 2
            ;;
        --dry-run) dry_run=yes; shift ;;
        --uninstall) uninstall=yes; shift ;;
        -h | --help) usage; exit 0 ;;
        *) die "$1 is no option; --help lists them" ;;
    esac
done
if [ -z "$prefix" ]; then
    if [ "$(id -u)" = 0 ]; then
        prefix=/usr/local
    else
        [ -n "${HOME:-}" ] || die "HOME is not set: name a folder with --prefix"
        prefix=$HOME/.local
    fi
fi
case $prefix in /*) ;; *) die "--prefix $prefix is no absolute path" ;; esac
list=$prefix/share/ringverb/installed-files

# remove_folders FOLDER: it and those above it that are empty, but neither the prefix nor what is above it.
remove_folders() {
    (cd "$prefix" 2>/dev/null && [ "$1" != . ] && rmdir -p "$1" 2>/dev/null) || true
}

# Removes what a list names, and the folders that are empty then.
remove_listed() {
    while IFS= read -r file; do
        case /$file/ in */../*) die "$list names $file, which is not below $prefix" ;; esac
        rm -f "$prefix/$file"
        remove_folders "$(dirname "$file")"
    done <"$1"
}

if [ "$uninstall" = yes ]; then
    [ -f "$list" ] || die "nothing is installed below $prefix: there is no $list"
    copy=$(mktemp)
    cp "$list" "$copy"
    rm -f "$list"
    remove_listed "$copy"
    rm -f "$copy"
    remove_folders share/ringverb
    echo "ringverb was removed from $prefix. Configuration files (.env, ringverb.toml) were left where they are."
    exit 0
fi

[ -n "$from" ] ||
    die "name the place of the archive with --from URL_OR_FOLDER: there is no public release yet, so this \
script knows no address; packaging/release of the source tree makes the archive and SHA256SUMS"
[ "$(uname -s)" = Linux ] || die "ringverb runs on Linux, and this is $(uname -s): use a container or a virtual machine"
arch=$(uname -m)
case $arch in
    x86_64 | amd64) arch=x86_64 ;;
    aarch64 | arm64) arch=aarch64 ;;
    *) die "there is no archive for $arch, only for x86_64 and aarch64: build from source with cargo" ;;
esac

# needed PROGRAM [PACKAGE]: minimal images of distributions lack some.
needed() {
    command -v "$1" >/dev/null 2>&1 ||
        die "$1 is missing: install the package ${2:-$1} (apt-get install, dnf install or apk add)"
}
for program in tar gzip; do needed "$program"; done
for program in sha256sum mktemp sort comm; do needed "$program" coreutils; done
for program in sed grep; do needed "$program"; done
case $from in
    http://* | https://*)
        command -v curl >/dev/null 2>&1 || command -v wget >/dev/null 2>&1 ||
            die "neither curl nor wget is installed, and $from is a URL: install one, or fetch the archive and \
SHA256SUMS elsewhere and give their folder"
        ;;
esac

# The C library: the program of an archive starts with glibc only. Elsewhere the shell would say "not found".
libc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || libc=$(ldd --version 2>&1) || :
case $libc in
    *musl*)
        die "this host has musl instead of glibc, as Alpine has: use the container image, or build from source with \
cargo"
        ;;
esac
glibc=$(printf '%s\n' "$libc" | sed -n '1s/.* \([0-9][0-9]*\.[0-9][0-9]*\).*/\1/p')
case $glibc in
    2.*) [ "${glibc#2.}" -ge 28 ] ||
        die "this host has glibc $glibc, and ringverb needs 2.28: update the system, use the container image, or build \
from source" ;;
    *)
        die "neither getconf nor ldd names a glibc on this host: use the container image, or build from source with \
cargo"
        ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

# get NAME: from the place into the work folder.
get() {
    case $from in
        http://* | https://*)
            if command -v curl >/dev/null 2>&1; then
                curl --fail --silent --show-error --location --output "$work/$1" "$from/$1"
            else
                wget -q -O "$work/$1" "$from/$1"
            fi || die "$from/$1 could not be fetched: is there a release at this address?"
            ;;
        *)
            [ -d "$from" ] || die "--from takes the folder that holds the archive and SHA256SUMS: $from is no folder"
            cp "$from/$1" "$work/$1" || die "$from/$1 could not be read"
            ;;
    esac
}

get SHA256SUMS
if [ -n "$version" ]; then
    archive=ringverb-$version-$arch-linux.tar.gz
else
    archive=$(sed -n "s/^[0-9a-f]\{64\}  \(ringverb-[0-9A-Za-z.+-]*-$arch-linux\.tar\.gz\)\$/\1/p" "$work/SHA256SUMS" \
        | tail -n 1)
    [ -n "$archive" ] || die "$from/SHA256SUMS names no archive for $arch"
fi
line=$(grep "^[0-9a-f]\{64\}  $archive\$" "$work/SHA256SUMS") || die "$from/SHA256SUMS does not name $archive"
get "$archive"
(cd "$work" && printf '%s\n' "$line" | sha256sum -c - >/dev/null 2>&1) ||
    die "$archive does not have the sum that SHA256SUMS names: it is damaged or not what was released; nothing was \
installed"
tar -xzf "$work/$archive" -C "$work"
tree=$work/${archive%.tar.gz}
"$tree/bin/ringverb" --version >/dev/null || die "the program of $archive does not run on this host"

# Files of the archive, by their paths below the prefix. Shells look for completions in these places.
(cd "$tree" && find . -type f | sed 's,^\./,,') | sort >"$work/files"
place() {
    case $1 in
        share/completions/ringverb.bash) echo share/bash-completion/completions/ringverb ;;
        share/completions/ringverb.zsh) echo share/zsh/site-functions/_ringverb ;;
        share/completions/ringverb.fish) echo share/fish/vendor_completions.d/ringverb.fish ;;
        *) echo "$1" ;;
    esac
}

echo "$archive: the sum is right. Into $prefix:"
while IFS= read -r file; do
    place "$file"
done <"$work/files" >"$work/places"
sed -n '/^bin\//p; /completions\//p; /\.d\/ringverb\.fish$/p; /_ringverb$/p; /man1\/ringverb\.1/p' "$work/places" |
    sed 's/^/    /'
echo "    and $(wc -l <"$work/places") files in all, the rest of them below share/"
if [ "$dry_run" = yes ]; then
    echo "Nothing was changed (--dry-run)."
    exit 0
fi

# What an older version had and this one has not goes away.
[ ! -f "$list" ] || cp "$list" "$work/before"
while IFS= read -r file; do
    to=$prefix/$(place "$file")
    mkdir -p "$(dirname "$to")" || die "$prefix cannot be written: run as root, or choose another --prefix"
    # Beside it and renamed: a server that runs keeps its own program.
    cp "$tree/$file" "$to.new" && mv -f "$to.new" "$to" || die "$to could not be written"
done <"$work/files"
mkdir -p "$(dirname "$list")"
if [ -f "$work/before" ]; then
    sort "$work/before" >"$work/before.sorted"
    sort "$work/places" | comm -23 "$work/before.sorted" - >"$work/gone"
    remove_listed "$work/gone"
fi
cp "$work/places" "$list"

"$prefix/bin/ringverb" --version
case :$PATH: in
    *:"$prefix/bin":*) run=ringverb ;;
    *)
        run=$prefix/bin/ringverb
        echo "$prefix/bin is not in PATH. Add it:  export PATH=\"$prefix/bin:\$PATH\""
        ;;
esac
echo "Start it in the folder of a Laravel app:  $run start"
echo "Remove it:  sh install.sh --uninstall --prefix $prefix"
