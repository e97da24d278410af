# What tests/packages/run looks for in the packages themselves, before anything is installed.
# shellcheck shell=bash disable=SC2154

# no_folders FILE...: whether they name no folder of the machine that built them.
no_folders() {
    ! zgrep --quiet --fixed-strings --regexp="$PWD" --regexp="${CARGO_HOME:-$HOME/.cargo}" "$@" || fail "a folder of this machine is in $*"
}

kibibytes() {
    printf '%d KiB' $(($(stat --format %s "$1") / 1024))
}

# check_documents LIST LICENSES
check_documents() {
    python3 tests/packages/documents.py "$1" "$2" || fail "the documents in $1 and $2"
    no_folders "$1" "$2"
}

# What the Debian package contains, unpacked.
check_contents() {
    local program=$contents/usr/bin/postkey documents=$contents/usr/share/doc/postkey
    rm -rf "$contents"
    dpkg-deb --extract "$package" "$contents"
    diff --recursive --brief docs/guide "$documents/guide" || fail 'the package has another guide'
    check_documents "$documents/postkey.cdx.json" "$documents/licenses.txt.gz"
    no_folders "$program"
    ! readelf --section-headers --wide "$program" | grep -qE ' \.(symtab|debug_info) ' || fail 'the program is not stripped'
    printf 'The package has %s, the program in it %s, the licenses %s.\n' "$(kibibytes "$package")" "$(kibibytes "$program")" \
        "$(kibibytes "$documents/licenses.txt.gz")"
}

# The symbols belong to the program: they have its build id, and the names of functions and the lines of the source.
check_symbols() {
    local symbols found=$folder/symbols id program=$contents/usr/bin/postkey
    symbols=$(echo target/debian/postkey-dbgsym_*.ddeb)
    rm -rf "$found"
    dpkg-deb --extract "$symbols" "$found"
    id=$(readelf --notes "$program" | sed -n 's/.*Build ID: //p')
    [ -n "$id" ] || fail 'the program has no build id'
    local file=$found/usr/lib/debug/.build-id/${id:0:2}/${id:2}.debug
    [ -e "$file" ] || fail "the symbols are not those of build id $id"
    no_folders "$file"
    [ "$(nm --demangle "$file" | grep --count ' postkey::cli')" -gt 0 ] || fail 'no symbols'
    [ "$(readelf --section-headers --wide "$file" | grep --count ' \.debug_line ')" -gt 0 ] || fail 'no lines of the source'
    printf 'The symbols have %s.\n' "$(kibibytes "$symbols")"
}

# files FOLDER: what is in an unpacked package, except for documents, which every system has elsewhere.
files() {
    (cd "$1" && find . -type f -not -path '*/doc/*' -not -path '*/licenses/*' -printf '%m %P\n') \
        | sed 's,zsh/vendor-completions,zsh/site-functions,; s,\.gz$,,' | sort
}

# The RPM has the same program and the same files as the Debian package.
check_rpm() {
    local found=$folder/rpm documents=usr/share/doc/postkey
    rpm=$PWD/$(echo target/generate-rpm/postkey-*.rpm)
    rm -rf "$found"
    mkdir "$found"
    bsdtar --extract --file "$rpm" --directory "$found"
    cmp "$found/usr/bin/postkey" "$contents/usr/bin/postkey" || fail 'the RPM has another program'
    diff <(files "$contents") <(files "$found") || fail 'the RPM has other files than the Debian package'
    diff --recursive --brief docs/guide "$found/$documents/guide" || fail 'the RPM has another guide'
    check_documents "$found/$documents/postkey.cdx.json" "$found/usr/share/licenses/postkey/licenses.txt.gz"
    expect 'MIT OR Apache-2.0' rpm --query --package --queryformat '%{LICENSE}' "$rpm"
    expect /etc/postkey/postkey.toml rpm --query --package --configfiles "$rpm"
    local required
    for required in ca-certificates systemd 'libc\.so\.6(GLIBC_2\.[0-9]*)(64bit)'; do
        rpm --query --package --requires "$rpm" | grep -qx "$required" || fail "the RPM does not require $required"
    done
    printf 'The RPM has %s.\n' "$(kibibytes "$rpm")"
}

# The archive that makepkg packs with the program that was built before. makepkg does not run as root.
check_arch() {
    local elsewhere=$scratch/arch
    copy_source "$elsewhere"
    install -D "$contents/usr/bin/postkey" "$elsewhere/target/release/postkey"
    chown --recursive nobody:nogroup "$elsewhere"
    (cd "$elsewhere/packaging/arch" && setpriv --reuid=nobody --regid=nogroup --clear-groups \
        env HOME="$elsewhere" PKGDEST="$elsewhere" PACMAN=true makepkg --repackage --nodeps) > "$folder/makepkg.log" 2>&1 \
        || { cat "$folder/makepkg.log"; fail 'makepkg'; }
    mkdir "$elsewhere/found"
    tar --extract --file "$(echo "$elsewhere"/postkey-*.pkg.tar*)" --directory "$elsewhere/found" --exclude '.*'
    diff <(files "$contents") <(files "$elsewhere/found") || fail 'the package for Arch Linux has other files than the Debian package'
}

# In a copy of the source, which has nothing else. The dependencies may have been compiled before.
check_cargo_install() {
    local source=$folder/source
    copy_source "$source"
    CARGO_TARGET_DIR=$PWD/target cargo install --locked --quiet --path "$source" --root "$folder/installed" \
        || fail 'cargo install'
    expect "postkey $(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)" "$folder/installed/bin/postkey" --version
    expect postkey ls "$folder/installed/bin"
}

# copy_source FOLDER: the files of the project, and nothing that was built.
copy_source() {
    rm -rf "$1"
    mkdir -p "$1"
    git ls-files -z --cached --others --exclude-standard | xargs --null cp --parents --target-directory="$1"
}

# Elsewhere, with nothing that the first build has compiled. Cargo names a project differently in a folder of the same name.
check_that_a_second_build_is_the_same() {
    local elsewhere=$scratch/postkey file
    copy_source "$elsewhere"
    "$elsewhere/packaging/build"
    for file in target/debian/*.deb target/debian/*.ddeb target/generate-rpm/*.rpm; do
        cmp "$file" "$elsewhere/$file" || fail "$file is not the same"
        sha256sum "$file"
    done
}
