//! Files that only the process's user may read (0600, in directories of 0700, whatever the umask), and a process memory
//! that the kernel neither dumps nor lets others trace.
//!
//! This module follows no symbolic link when it makes or writes a file: otherwise another user who may write to the
//! directory could make the sidecar overwrite a different file.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Creates a file for reading and writing.
///
/// # Errors
/// When something is at the path already (a symbolic link counts), or the file cannot be created.
pub fn create_new(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)?;
    // A umask only takes bits away, but it may take the owner's.
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    Ok(file)
}

/// Opens a file for writing and creates it if it is missing. Appends if `to_its_end`, otherwise truncates it.
///
/// # Errors
/// When the path is a symbolic link, or cannot be opened.
pub fn open(path: &Path, to_its_end: bool) -> io::Result<File> {
    let opened = OpenOptions::new()
        .create(true)
        .write(true)
        .append(to_its_end)
        .truncate(!to_its_end)
        .mode(FILE_MODE)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path);
    opened.map_err(|error| {
        if path.is_symlink() {
            io::Error::new(error.kind(), "it is a symbolic link: name the file itself")
        } else {
            error
        }
    })
}

/// Writes a file and puts it at `path` with one rename, in place of any file there. A symbolic link at `path` is
/// replaced; its target stays as it is.
///
/// # Errors
/// When it cannot be written. Then whatever was at `path` is still there, and no partial file is left beside it.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    // A process that was killed here may have left one. If it is a link, this removes the link, not its target.
    match std::fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let put = create_new(beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(beside, path));
    put.map_err(|error| match std::fs::remove_file(beside) {
        Ok(()) | Err(_) => error,
    })
}

/// Writes files below a directory with [`replace`] and creates missing directories.
///
/// # Errors
/// When one cannot be written. The files before it in the list have been written then.
pub fn replace_all(directory: &Path, files: &[(PathBuf, String)]) -> io::Result<()> {
    for (name, text) in files {
        let path = directory.join(name);
        create_directories(path.parent().unwrap_or(directory))?;
        replace(&path, text.as_bytes())?;
    }
    Ok(())
}

/// Creates a directory and its missing parents. A directory that exists keeps its mode.
///
/// # Errors
/// When one of them cannot be created.
pub fn create_directories(path: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(path)
}

/// Creates a directory.
///
/// # Errors
/// When something is at the path already (a symbolic link counts), or the directory cannot be created.
pub fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(DIRECTORY_MODE).create(path)
}

/// Whether users other than the owner may read or write the file.
#[must_use]
pub fn is_shared(metadata: &std::fs::Metadata) -> bool {
    metadata.permissions().mode() & 0o077 != 0
}

/// Forbids the kernel to dump this process's memory to a file when it crashes, and to show it to other processes of the
/// same user (`ptrace`, `/proc/PID/mem`). A process that holds secrets calls this before it reads the first one.
///
/// # Errors
/// When the kernel refuses.
pub fn forbid_dumps() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_for_its_user_only_and_no_link_is_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("victim"), "whole").unwrap();
        for link in ["new", "open", "replace", "replace2.new", "directory"] {
            symlink(at("victim"), at(link)).unwrap();
        }
        assert!(create_new(&at("new")).is_err());
        let refused = open(&at("open"), false).unwrap_err();
        assert!(refused.to_string().contains("symbolic link"), "{refused}");
        assert!(open(&at("open"), true).is_err());
        assert!(create_directory(&at("directory")).is_err());
        replace(&at("replace"), b"other").unwrap();
        replace(&at("replace2"), b"other").unwrap();
        assert_eq!(std::fs::read(at("victim")).unwrap(), b"whole");
        assert_eq!(std::fs::read(at("replace")).unwrap(), b"other");

        create_new(&at("a")).unwrap();
        assert!(create_new(&at("a")).is_err(), "it is there");
        open(&at("b"), false).unwrap().write_all(b"one").unwrap();
        open(&at("b"), true).unwrap().write_all(b"two").unwrap();
        assert_eq!(std::fs::read(at("b")).unwrap(), b"onetwo");
        create_directories(&at("c/d")).unwrap();
        create_directories(&at("c/d")).unwrap();
        for (name, expected) in [
            ("a", 0o600),
            ("b", 0o600),
            ("replace", 0o600),
            ("c", 0o700),
            ("c/d", 0o700),
        ] {
            assert_eq!(mode(&at(name)), expected, "{name}");
        }
        // A failed replacement leaves no file beside the target.
        create_directories(&at("full/folder")).unwrap();
        assert!(replace(&at("full"), b"x").is_err());
        assert!(!at("full.new").exists());
    }

    #[test]
    fn who_else_may_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let file = create_new(&path).unwrap();
        assert!(!is_shared(&file.metadata().unwrap()));
        for mode in [0o640, 0o604, 0o620] {
            file.set_permissions(Permissions::from_mode(mode)).unwrap();
            assert!(is_shared(&file.metadata().unwrap()), "{mode:o}");
        }
    }
}
