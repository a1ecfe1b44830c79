//! Container images made from programs of this machine, as an OCI archive of one layer that containerd,
//! kind, k3s, podman and skopeo import. No registry and no daemon. Contents decide the bytes: no times, no
//! order that could change.
//!
//! The archive is an OCI image layout (OCI image specification 1.0, image-layout) in a tar file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aws_lc_rs::digest;
use serde_json::{Value, json};

use super::command::run;
use super::error::Error;

/// The image of the program under test.
pub const CLOVERLEAF_IMAGE: &str = "localhost/cloverleaf:test";
/// A shell and small tools, for tests that need somebody in a pod.
pub const TOOLS_IMAGE: &str = "localhost/cloverleaf-tools:test";

/// What `strip` and `ldd` may take.
const TOOL_WITHIN: Duration = Duration::from_secs(60);
const TAR_BLOCK_BYTES: usize = 512;
/// The folders that a root file system is expected to have.
const FOLDERS: [&str; 6] = ["dev", "etc", "proc", "sys", "tmp", "var/run"];
/// The commands that the tools' image has.
const TOOLS: [&str; 18] = [
    "sh", "cat", "date", "echo", "env", "grep", "head", "hostname", "httpd", "ip", "ls", "mkdir",
    "nc", "nslookup", "ps", "seq", "sleep", "wc",
];

/// An image to be written.
#[derive(Debug, Clone)]
pub struct Image {
    name: String,
    entries: Vec<Entry>,
    entrypoint: Vec<String>,
    user: Option<String>,
}

#[derive(Debug, Clone)]
struct Entry {
    /// Without a slash at its start.
    path: String,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    File { bytes: Vec<u8>, executable: bool },
    Link(String),
}

impl Image {
    /// With nothing in it but the usual folders. The name has a tag.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), entries: Vec::new(), entrypoint: Vec::new(), user: None }
    }

    /// The program under test as [`CLOVERLEAF_IMAGE`], run by a user without rights, as in the real image.
    ///
    /// # Errors
    /// As [`Self::program`].
    pub fn cloverleaf(program: &Path) -> Result<Self, Error> {
        let users = "root:x:0:0::/:/none\ncloverleaf:x:65532:65532::/:/none\n";
        let image = Self::new(CLOVERLEAF_IMAGE)
            .program(program, "cloverleaf")?
            .text("etc/passwd", users)
            .text("etc/nsswitch.conf", "hosts: files dns\n")
            .entrypoint(&["/cloverleaf"])
            .user("65532:65532");
        let authorities = Path::new("/etc/ssl/certs/ca-certificates.crt");
        if authorities.is_file() {
            return image.file(authorities, "etc/ssl/certs/ca-certificates.crt");
        }
        Ok(image)
    }

    /// A shell and small tools (busybox) as [`TOOLS_IMAGE`].
    ///
    /// # Errors
    /// If this machine has no busybox.
    pub fn tools() -> Result<Self, Error> {
        let found = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
        let busybox = found.into_iter().find(|path| path.is_file()).ok_or_else(|| {
            Error::Unable("no busybox on this machine: install busybox-static".to_owned())
        })?;
        let image = Self::new(TOOLS_IMAGE).program(busybox, "bin/busybox")?;
        Ok(TOOLS
            .iter()
            .fold(image, |image, name| image.link(&format!("bin/{name}"), "/bin/busybox")))
    }

    /// With a program at `path`, without its symbols, and with the shared libraries that it needs, each
    /// where it is on this machine. A static program needs none.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn program(self, program: &Path, path: &str) -> Result<Self, Error> {
        let folder = tempfile::tempdir().map_err(Error::io("make a temporary folder"))?;
        let stripped = folder.path().join("program");
        let strip =
            run(Command::new("strip").arg("-o").arg(&stripped).arg(program), None, TOOL_WITHIN);
        // Without strip the image is larger, and that is all.
        let smaller = if strip.is_ok() { stripped.as_path() } else { program };
        let mut image = self.file(smaller, path)?;
        for library in libraries(program) {
            let place = library.to_string_lossy().trim_start_matches('/').to_owned();
            if !image.entries.iter().any(|entry| entry.path == place) {
                image = image.file(&library, &place)?;
            }
        }
        Ok(image)
    }

    /// With a file of this machine at `path`; executable there if it is here.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn file(mut self, source: &Path, path: &str) -> Result<Self, Error> {
        use std::os::unix::fs::PermissionsExt;
        let read = || Ok((std::fs::read(source)?, source.metadata()?.permissions().mode()));
        let (bytes, mode) = read().map_err(Error::io(format!("read {}", source.display())))?;
        let content = Content::File { bytes, executable: mode & 0o111 != 0 };
        self.entries.push(Entry { path: path.to_owned(), content });
        Ok(self)
    }

    /// With a text at `path`.
    #[must_use]
    pub fn text(mut self, path: &str, text: &str) -> Self {
        let content = Content::File { bytes: text.as_bytes().to_vec(), executable: false };
        self.entries.push(Entry { path: path.to_owned(), content });
        self
    }

    /// With a symbolic link at `path`.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.entries
            .push(Entry { path: path.to_owned(), content: Content::Link(target.to_owned()) });
        self
    }

    /// What runs when a pod names no command.
    #[must_use]
    pub fn entrypoint(mut self, command: &[&str]) -> Self {
        self.entrypoint = command.iter().map(|part| (*part).to_owned()).collect();
        self
    }

    /// As whom, `uid:gid`.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// If a path is too long for the format (100 bytes), or the file cannot be written.
    pub fn write(&self, archive: &Path) -> Result<(), Error> {
        let written = || -> io::Result<()> {
            let layer = self.layer()?;
            let config = self.config(&layer).to_string().into_bytes();
            let manifest = manifest(&config, &layer).to_string().into_bytes();
            let index = self.index(&manifest).to_string();
            let mut tar = Tar::new(io::BufWriter::new(File::create(archive)?));
            tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
            tar.file("index.json", 0o644, index.as_bytes())?;
            for blob in [&config, &layer, &manifest] {
                tar.file(&format!("blobs/sha256/{}", sha256(blob)), 0o644, blob)?;
            }
            tar.finish()?.flush()
        };
        written().map_err(Error::io(format!("write the image {}", archive.display())))
    }

    fn layer(&self) -> io::Result<Vec<u8>> {
        let mut folders = BTreeSet::new();
        let places = self.entries.iter().filter_map(|entry| Path::new(&entry.path).parent());
        for place in FOLDERS.iter().map(Path::new).chain(places) {
            let above = place.ancestors().filter(|folder| !folder.as_os_str().is_empty());
            folders.extend(above.map(PathBuf::from));
        }
        let mut tar = Tar::new(Vec::new());
        for folder in &folders {
            let mode = if folder == Path::new("tmp") { 0o1777 } else { 0o755 };
            tar.folder(&folder.to_string_lossy(), mode)?;
        }
        for Entry { path, content } in &self.entries {
            match content {
                Content::File { bytes, executable } => {
                    tar.file(path, if *executable { 0o755 } else { 0o644 }, bytes)?;
                }
                Content::Link(target) => tar.link(path, target)?,
            }
        }
        tar.finish()
    }

    fn config(&self, layer: &[u8]) -> Value {
        json!({
            "architecture": architecture(),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Entrypoint": self.entrypoint,
                "Env": ["PATH=/usr/local/bin:/usr/bin:/bin:/sbin"],
                "User": self.user.as_deref().unwrap_or(""),
                "WorkingDir": "/",
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(layer))] },
        })
    }

    fn index(&self, manifest: &[u8]) -> Value {
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let mut described = descriptor("application/vnd.oci.image.manifest.v1+json", manifest);
        described["platform"] = json!({ "architecture": architecture(), "os": "linux" });
        described["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": tag,
        });
        json!({ "schemaVersion": 2, "manifests": [described] })
    }
}

fn manifest(config: &[u8], layer: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        // Not compressed: that would cost more time than it saves on one machine.
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    })
}

fn descriptor(kind: &str, blob: &[u8]) -> Value {
    json!({
        "mediaType": kind,
        "digest": format!("sha256:{}", sha256(blob)),
        "size": blob.len(),
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The shared libraries and the loader of a program, by `ldd`; none for a static one.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = run(Command::new("ldd").arg(program), None, TOOL_WITHIN).unwrap_or_default();
    let paths = listed.lines().filter_map(|line| {
        let line = line.trim();
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        let path = path.split_once(" (").map_or(path, |(path, _)| path);
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    paths.collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes tar (POSIX ustar): owned by root, from 1970.
struct Tar<W> {
    to: W,
}

impl<W: Write> Tar<W> {
    fn new(to: W) -> Self {
        Self { to }
    }

    fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(&header(path, mode, bytes.len(), b'0', "")?)?;
        self.to.write_all(bytes)?;
        let rest = bytes.len().next_multiple_of(TAR_BLOCK_BYTES) - bytes.len();
        self.to.write_all(&[0; TAR_BLOCK_BYTES][..rest])
    }

    fn folder(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.to.write_all(&header(&format!("{path}/"), mode, 0, b'5', "")?)
    }

    fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.to.write_all(&header(path, 0o777, 0, b'2', target)?)
    }

    fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&[0; 2 * TAR_BLOCK_BYTES])?;
        Ok(self.to)
    }
}

fn header(
    path: &str,
    mode: u32,
    size: usize,
    kind: u8,
    target: &str,
) -> io::Result<[u8; TAR_BLOCK_BYTES]> {
    let mut block = [0; TAR_BLOCK_BYTES];
    let mut put = |at: usize, room: usize, text: &str| {
        if text.len() > room {
            return Err(io::Error::other(format!("{text} is too long for an archive")));
        }
        block[at..at + text.len()].copy_from_slice(text.as_bytes());
        Ok(())
    };
    put(0, 100, path)?;
    put(100, 8, &format!("{mode:07o}"))?;
    put(108, 8, "0000000")?;
    put(116, 8, "0000000")?;
    put(124, 12, &format!("{size:011o}"))?;
    put(136, 12, "00000000000")?;
    // The checksum is taken with spaces in its own place.
    put(148, 8, "        ")?;
    put(157, 100, target)?;
    put(257, 8, "ustar\x0000")?;
    block[156] = kind;
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    #[test]
    fn an_archive_is_what_tar_reads() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("image.tar");
        let image = Image::new("localhost/a:b").text("etc/deep/file", "text").link("bin/l", "/x");
        image.write(&archive).unwrap();
        let again = folder.path().join("again.tar");
        image.write(&again).unwrap();
        assert_eq!(std::fs::read(&archive).unwrap(), std::fs::read(&again).unwrap());

        let tar = |args: &[&str], file: &Path| {
            run(Command::new("tar").args(args).arg(file), None, WITHIN).unwrap()
        };
        let index =
            run(Command::new("tar").arg("-xOf").arg(&archive).arg("index.json"), None, WITHIN);
        let index: Value = serde_json::from_str(&index.unwrap()).unwrap();
        assert_eq!(
            index["manifests"][0]["annotations"]["io.containerd.image.name"],
            "localhost/a:b"
        );
        assert_eq!(tar(&["-tf"], &archive).lines().count(), 5);
        let layer = folder.path().join("layer.tar");
        std::fs::write(&layer, image.layer().unwrap()).unwrap();
        let listed = tar(&["-tf"], &layer);
        assert!(listed.lines().any(|line| line == "etc/deep/file"), "{listed}");
        assert!(tar(&["-tvf"], &layer).contains("bin/l -> /x"), "{listed}");
    }

    #[test]
    fn a_program_brings_its_libraries() {
        let image = Image::new("localhost/a:b").program(Path::new("/bin/ls"), "ls").unwrap();
        let paths: Vec<&str> = image.entries.iter().map(|entry| entry.path.as_str()).collect();
        assert!(paths.iter().any(|path| path.contains("libc.so")), "{paths:?}");
        assert!(paths.iter().any(|path| path.contains("ld-linux")), "{paths:?}");
    }

    #[test]
    fn a_path_that_does_not_fit_is_an_error() {
        assert!(header(&"a".repeat(101), 0, 0, b'0', "").is_err());
    }
}
