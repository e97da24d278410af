# What tests/packages/run looks for in the clean Debian $root.

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# expect TEXT COMMAND...: the command says just this.
expect() {
    local expected=$1 said
    shift
    said=$("$@") || fail "$* has failed"
    [ "$said" = "$expected" ] || fail "$*: $said, and not $expected"
}

# Every file with its mode and owner, and what those in /etc contain; without what dpkg, apt and ldconfig keep for
# themselves, and without the previous versions of the lists of users.
listing() {
    (
        cd "$root"
        find . \( -path ./var/lib/dpkg -o -path ./var/lib/apt -o -path ./var/cache -o -path ./var/log \) -prune \
            -o -printf '%p %M %u:%g %l\n' | grep -vE '^\./etc/(passwd|group|shadow|gshadow)-|^\./etc/\.pwd\.lock|^\./root'
        find ./var/log -mindepth 1 -type d
        find ./etc -type f ! -name '*-' ! -name .pwd.lock ! -name ld.so.cache -exec sha256sum {} +
    ) | sort
}

check_files() {
    local mode path
    while read -r mode path; do
        expect "$mode root:root" stat --format '%a %U:%G' "$root$path"
    done <<'FILES'
755 /usr/bin/postkey
755 /etc/postkey
644 /etc/postkey/postkey.toml
644 /usr/lib/systemd/system/postkey.service
644 /usr/lib/systemd/user/postkey.service
644 /usr/lib/sysusers.d/postkey.conf
644 /usr/share/man/man1/postkey.1.gz
644 /usr/share/man/man5/postkey.toml.5.gz
644 /usr/share/bash-completion/completions/postkey
644 /usr/share/zsh/vendor-completions/_postkey
644 /usr/share/fish/vendor_completions.d/postkey.fish
644 /usr/share/doc/postkey/changelog.gz
644 /usr/share/doc/postkey/changelog.Debian.gz
644 /usr/share/doc/postkey/copyright
644 /usr/share/doc/postkey/guide/install.md
644 /usr/share/doc/postkey/licenses.txt.gz
644 /usr/share/doc/postkey/postkey.cdx.json
FILES
    in_root dpkg-query --show --showformat '${Conffiles}' postkey | grep -q '^ /etc/postkey/postkey.toml ' \
        || fail 'the configuration is no conffile'
    grep -q '^License: Expat$' "$root/usr/share/doc/postkey/copyright" || fail 'the licences are missing'
    ls "$root"/usr/lib/systemd/system/postkey*.socket > /dev/null
    ls "$root"/usr/lib/systemd/user/postkey*.socket > /dev/null
}

check_program() {
    local version
    version=$(dpkg-deb --field "$package" Version)
    expect "postkey ${version%-*}" in_root postkey --version
    head -1 packaging/debian/changelog | grep -qF "($version)" || fail "packaging/debian/changelog is not about $version"
    in_root postkey check > /dev/null || fail 'the default configuration has mistakes'
    as_postkey check > /dev/null || fail 'the default configuration has mistakes for the service'
}

# By rpm itself, in the Debian that has what the RPM requires under other names.
check_rpm_installation() {
    local database=(rpm --root "$root" --dbpath /var/lib/rpm)
    "${database[@]}" --install --nodeps "$1" || fail 'the RPM cannot be installed'
    expect "postkey $("${database[@]}" --query --queryformat '%{VERSION}' postkey)" in_root postkey --version
    as_postkey check > /dev/null || fail 'the default configuration has mistakes for the service'
    check_that_nothing_runs
    use_it
    echo 'log = "warn"' > "$root/etc/postkey/postkey.toml"
    "${database[@]}" --upgrade --nodeps --force "$1" || fail 'the RPM cannot be upgraded'
    expect 'log = "warn"' cat "$root/etc/postkey/postkey.toml"
    [ -n "$(find "$root/etc/systemd" -name postkey.service)" ] || fail 'an upgrade has disabled the unit'
    "${database[@]}" --erase --nodeps postkey || fail 'the RPM cannot be removed'
    mv "$root/etc/postkey/postkey.toml.rpmsave" "$root/etc/postkey/postkey.toml"
    check_what_a_removal_keeps
}

# The program as the service runs it.
as_postkey() {
    chroot --userspec=postkey:postkey "$root" env STATE_DIRECTORY=/var/lib/postkey \
        postkey --config /etc/postkey/postkey.toml "$@"
}

# No unit is enabled, and no process came out of the installation.
check_that_nothing_runs() {
    [ -z "$(find "$root/etc/systemd" -name 'postkey*')" ] || fail 'a unit was enabled'
    local process
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/root")" != "$root" ] || fail "the installation has started $(tr '\0' ' ' < "$process/cmdline")"
    done
}

# An administrator enables the units, keeps a secret beside the configuration, and the service makes its vault.
use_it() {
    in_root systemctl --quiet enable postkey.service
    [ -n "$(find "$root/etc/systemd" -name postkey.service)" ] || fail 'the unit cannot be enabled'
    echo secret > "$root/etc/postkey/google.secret"
    install --directory --owner "$(in_root id --user postkey)" --mode 700 "$root/var/lib/postkey"
    as_postkey status > /dev/null
    [ -n "$(ls "$root/var/lib/postkey")" ] || fail 'no vault was made'
}

check_what_a_removal_keeps() {
    expect 'log = "warn"' cat "$root/etc/postkey/postkey.toml"
    [ -n "$(ls "$root/var/lib/postkey")" ] || fail 'a removal took the vault'
    [ -z "$(find "$root/etc/systemd" -name 'postkey*')" ] || fail 'a removal left links to units'
    [ ! -e "$root/usr/bin/postkey" ] || fail 'a removal left the program'
}
