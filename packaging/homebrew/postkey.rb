# For Homebrew on Linux, from a source archive whose address and checksum you fill in.
class Postkey < Formula
  desc "OAuth 2.0 for mail programs that support only passwords"
  homepage "https://example.com/postkey"
  url "https://example.com/postkey-0.2.0.tar.gz"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args
    man1.install "docs/man/postkey.1"
    man5.install "docs/man/postkey.toml.5"
    bash_completion.install "packaging/completions/postkey.bash" => "postkey"
    zsh_completion.install "packaging/completions/_postkey"
    fish_completion.install "packaging/completions/postkey.fish"
    pkgetc.install "config/postkey.toml"
  end

  service do
    run [opt_bin/"postkey"]
    keep_alive crashed: true
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/postkey --version")
  end
end
