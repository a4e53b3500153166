# Homebrew formula, built from source on macOS and Linux. scripts/dist writes target/dist/dtunnel.rb from it, with the
# version, the project's address and the source's checksum; that file goes into Formula/ of a tap.
class Dtunnel < Formula
  desc "Docker Engine of a remote host as a private local socket, over SSH"
  homepage "@REPOSITORY@"
  url "@REPOSITORY@/releases/download/v@VERSION@/dtunnel-@VERSION@-source.tar.gz"
  sha256 "@SHA256@"
  license "MIT"
  head "@REPOSITORY@.git", branch: "main"

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args
    man1.install Dir["docs/man/*.1"]
    bash_completion.install "docs/completions/dtunnel.bash" => "dtunnel"
    zsh_completion.install "docs/completions/dtunnel.zsh" => "_dtunnel"
    fish_completion.install "docs/completions/dtunnel.fish"
    # `docker dtunnel …`: docker's cliPluginsExtraDirs names this directory.
    (lib/"docker/cli-plugins").install_symlink bin/"dtunnel" => "docker-dtunnel"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/dtunnel --version")
    assert_match "SchemaVersion", shell_output("#{lib}/docker/cli-plugins/docker-dtunnel docker-cli-plugin-metadata")
  end
end
