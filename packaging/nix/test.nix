# Evaluates the flake with a nixpkgs that has only what the flake uses: scripts/test-packages runs it, which reaches no other.
let
  lib = {
    importTOML = path: builtins.fromTOML (builtins.readFile path);
    genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
    licenses.mit = "MIT";
  };
  pkgs = { inherit lib; installShellFiles = null; rustPlatform.buildRustPackage = package: package; };
  systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
  nixpkgs = { inherit lib; legacyPackages = lib.genAttrs systems (system: pkgs); };
  packages = ((import ./flake.nix).outputs { self = { }; inherit nixpkgs; }).packages;
  of = system: packages.${system}.default;
in
map (system: assert builtins.pathExists (of system).cargoLock.lockFile; "${(of system).pname} ${(of system).version}") systems
