# nix run 'github:OWNER/dtunnel?dir=packaging/nix' (with the owner of `repository` in Cargo.toml)
{
  description = "The Docker Engine of a remote host as a private local socket, over SSH";

  # dtunnel needs the Rust version that Cargo.toml names, which this branch has.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      manifest = nixpkgs.lib.importTOML ../../Cargo.toml;
    in
    {
      packages = nixpkgs.lib.genAttrs systems (
        system:
        let
          pkgs = nixpkgs.legacyPackages.${system};
        in
        {
          default = pkgs.rustPlatform.buildRustPackage {
            pname = manifest.package.name;
            version = manifest.package.version;
            src = ../..;
            cargoLock.lockFile = ../../Cargo.lock;

            # What `dtunnel version` says: the source has no history here.
            DTUNNEL_COMMIT = self.shortRev or self.dirtyShortRev or "";

            # The end-to-end tests need root and servers.
            cargoTestFlags = [ "--lib" ];
            nativeBuildInputs = [ pkgs.installShellFiles ];
            postInstall = ''
              installManPage docs/man/*.1
              installShellCompletion --cmd dtunnel \
                --bash docs/completions/dtunnel.bash \
                --zsh docs/completions/dtunnel.zsh \
                --fish docs/completions/dtunnel.fish
              mkdir -p $out/libexec/docker/cli-plugins
              ln -s ../../../bin/dtunnel $out/libexec/docker/cli-plugins/docker-dtunnel
            '';

            meta = {
              description = manifest.package.description;
              homepage = manifest.package.repository;
              license = pkgs.lib.licenses.mit;
              mainProgram = "dtunnel";
            };
          };
        }
      );
    };
}
