# For Nix: `nix build .?dir=packaging` in the project's folder.
{
  description = "OAuth 2.0 for mail programs that support only passwords";

  inputs.nixpkgs.url = "nixpkgs";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = build: nixpkgs.lib.genAttrs systems (system: build nixpkgs.legacyPackages.${system});
    in
    {
      packages = each (pkgs: {
        default = pkgs.rustPlatform.buildRustPackage {
          pname = "postkey";
          version = "0.2.0";
          src = ../.;
          cargoLock.lockFile = ../Cargo.lock;
          cargoBuildFlags = [ "--bin" "postkey" ];
          # The tests need other programs and loopback ports.
          doCheck = false;
          nativeBuildInputs = [ pkgs.installShellFiles ];
          postInstall = ''
            installManPage docs/man/postkey.1 docs/man/postkey.toml.5
            installShellCompletion --bash --name postkey packaging/completions/postkey.bash
            installShellCompletion --zsh packaging/completions/_postkey
            installShellCompletion --fish packaging/completions/postkey.fish
          '';
          meta = {
            license = with pkgs.lib.licenses; [ mit asl20 ];
            mainProgram = "postkey";
          };
        };
      });
    };
}
