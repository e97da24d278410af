# What tests/packages/run looks for in the packages themselves, before anything is installed.
# shellcheck shell=bash disable=SC2154

# no_folders PROGRAM: whether it names no folder of the machine that built it.
no_folders() {
    ! grep --quiet --fixed-strings --regexp="$PWD" --regexp="${CARGO_HOME:-$HOME/.cargo}" "$1" || fail "$1 names a folder of this machine"
}

# What a package contains, unpacked.
check_contents() {
    local program=$contents/usr/bin/postkey documents=$contents/usr/share/doc/postkey
    rm -rf "$contents"
    dpkg-deb --extract "$package" "$contents"
    [ "$(zgrep --count '^  ' "$documents/licenses.txt.gz")" -gt 100 ] || fail 'the licenses of the dependencies are missing'
    ! zgrep --quiet --fixed-strings --regexp="$PWD" "$documents/licenses.txt.gz" || fail 'the licenses name a folder of this machine'
    no_folders "$program"
    ! readelf --section-headers --wide "$program" | grep -qE ' \.(symtab|debug_info) ' || fail 'the program is not stripped'
    printf 'The package has %d KiB, the program in it %d KiB, the licenses %d KiB.\n' $(($(stat --format %s "$package") / 1024)) \
        $(($(stat --format %s "$program") / 1024)) $(($(stat --format %s "$documents/licenses.txt.gz") / 1024))
}

# The symbols belong to the program: they have its build id, and a debugger finds the lines of its main function.
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
    nm "$file" | grep -q ' postkey::cli' || nm --demangle=rust "$file" | grep -q ' postkey::cli' || fail 'no symbols'
    printf 'The symbols have %d KiB.\n' $(($(stat --format %s "$symbols") / 1024))
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

# Elsewhere, with nothing that the first build has compiled.
check_that_a_second_build_is_the_same() {
    local elsewhere file
    elsewhere=$(mktemp --directory)
    trap 'rm -rf "$elsewhere"' EXIT
    copy_source "$elsewhere/another"
    "$elsewhere/another/packaging/build"
    for file in target/debian/*.deb target/debian/*.ddeb; do
        cmp "$file" "$elsewhere/another/$file" || fail "$file is not the same"
        sha256sum "$file"
    done
}
