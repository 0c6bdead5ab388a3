//! The files of a database: which process owns them, and who else may read them.
//!
//! They hold password hashes, signing secrets and payloads, so what is made here is its owner's
//! alone, whatever the umask. What an administrator made, or gave other rights, stays as it is,
//! with a warning.

use std::{
    fs::{DirBuilder, File, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::base::store::StoreError;

/// The lock of a process that has just been killed is not free the moment it is dead to its parent.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Rights of files that are made: the owner reads and writes. SQLite gives the log the database's
/// rights.
const FILE_MODE: u32 = 0o600;
/// Rights of directories that are made.
const DIRECTORY_MODE: u32 = 0o700;

/// The user to whom everything is open.
const ROOT: u32 = 0;

/// Endings of the files beside the database.
const LOCK: &str = ".lock";
const LOG: &str = "-wal";
const LOG_INDEX: &str = "-shm";

/// Most links that lead from one to the next.
const LINKS_MAX: usize = 40;

/// The path of the database itself where `path` is a link to it, whether it exists or not. SQLite keeps
/// its log beside the database and not beside the link, and two processes must not hold locks of two names.
pub(in crate::store) fn resolved(mut path: PathBuf) -> PathBuf {
    for _ in 0..LINKS_MAX {
        let Ok(target) = std::fs::read_link(&path) else { break };
        path = path.parent().map_or_else(|| target.clone(), |dir| dir.join(&target));
    }
    path
}

/// The write-ahead log.
pub(super) fn log(path: &Path) -> PathBuf {
    beside(path, LOG)
}

/// What connections share to find pages in the log.
pub(super) fn log_index(path: &Path) -> PathBuf {
    beside(path, LOG_INDEX)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Makes the directory and takes the lock that only one process at a time can hold.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir).map_err(|e| {
            StoreError::Internal(format!("cannot make the directory `{}` for store.url: {e}", dir.display()))
        })?;
    }
    let name = beside(path, LOCK);
    let file = open_or_make(&name)
        .map_err(|e| StoreError::Internal(format!("cannot write `{}` beside store.url: {e}", name.display())))?;
    let patience = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < patience => std::thread::park_timeout(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Unavailable(format!(
                    "`{}` is in use by another process: stop it, or give this one another store.url",
                    path.display()
                )));
            }
            Err(TryLockError::Error(e)) => {
                return Err(StoreError::Internal(format!(
                    "cannot lock `{}`: {e}; is it on a local disk?",
                    name.display()
                )));
            }
        }
    }
}

/// Makes the database's file, empty, if there is none. SQLite would make one that everybody can
/// read.
pub(super) fn make(path: &Path) -> Result<(), StoreError> {
    let failed =
        |e: io::Error| StoreError::Internal(format!("cannot make the database `{}` (store.url): {e}", path.display()));
    if path.try_exists().map_err(failed)? {
        return Ok(());
    }
    match orphan(path) {
        Some(why) => Err(StoreError::Internal(why)),
        None => open_or_make(path).map(drop).map_err(failed),
    }
}

/// Whether part of the database is, or may be, in its log only.
pub(super) fn has_log(path: &Path) -> bool {
    log(path).metadata().is_ok_and(|m| m.len() > 0)
}

/// Why no new database may be made here: SQLite would delete the log that is left of the old one.
pub(super) fn orphan(path: &Path) -> Option<String> {
    has_log(path).then(|| {
        format!(
            "`{}` (store.url) is missing, but its log `{}` is there, with the newest part of the data: put the database \
             back beside it, or move the log away to begin anew",
            path.display(),
            log(path).display()
        )
    })
}

fn open_or_make(path: &Path) -> io::Result<File> {
    let is_new = !path.try_exists()?;
    // Not `create_new`, which takes a link whose target is missing for a file.
    let file = File::options().write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
    if is_new {
        // The umask may have taken away more than nothing.
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}

/// Which files other users of this host can get at, and what to do; none if there is no such file.
/// The lock is empty, so it does not count.
pub(super) fn exposed(path: &Path) -> Option<String> {
    let all = [path.to_owned(), log(path), log_index(path)];
    let open = |file: &&PathBuf| is_open(file);
    let open: Vec<_> = all.iter().filter(open).map(|file| file.display().to_string()).collect();
    (!open.is_empty()).then(|| {
        format!(
            "other users of this host can get at the database, which holds password hashes, signing secrets and \
             payloads: run `chmod 600 {}`",
            open.join(" ")
        )
    })
}

/// Whether others have rights to a file and can come to it. A file that is not there, or that
/// nothing can be learned of, is open to nobody.
fn is_open(file: &Path) -> bool {
    let Ok(rights) = file.metadata() else { return false };
    // A link's own directories do not hide what it leads to.
    let Ok(at) = file.canonicalize() else { return false };
    // A directory that nothing can be learned of hides nothing. Nor does one of a third user, who
    // can come to what is in it.
    let hides = |dir: &Path| {
        dir.metadata().is_ok_and(|m| m.mode() & 0o011 == 0 && (m.uid() == rights.uid() || m.uid() == ROOT))
    };
    rights.mode() & 0o077 != 0 && !at.ancestors().skip(1).any(hides)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/app.db");
        let held = lock(&path).unwrap();
        make(&path).unwrap();
        assert_eq!(mode(&dir.path().join("a")), DIRECTORY_MODE);
        assert_eq!(mode(&dir.path().join("a/b")), DIRECTORY_MODE);
        assert_eq!((mode(&path), mode(&beside(&path, LOCK))), (FILE_MODE, FILE_MODE));
        assert_eq!(exposed(&path), None);
        drop(held);
        // A link to a file that is not there yet is followed.
        let (link, target) = (dir.path().join("link.db"), dir.path().join("target.db"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        make(&link).unwrap();
        assert_eq!(mode(&target), FILE_MODE);
    }

    #[test]
    fn a_link_leads_to_the_database_itself() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink("second.db", at("first.db")).unwrap();
        std::os::unix::fs::symlink(at("real.db"), at("second.db")).unwrap();
        assert_eq!(resolved(at("first.db")), at("real.db"), "though there is none yet");
        std::fs::write(at("real.db"), "").unwrap();
        assert_eq!(resolved(at("first.db")), at("real.db"));
        assert_eq!(resolved(at("real.db")), at("real.db"));
        std::os::unix::fs::symlink("loop.db", at("loop.db")).unwrap();
        assert_eq!(resolved(at("loop.db")), at("loop.db"), "a link to itself ends, too");
    }

    #[test]
    fn no_new_database_is_made_beside_the_log_of_one_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db");
        std::fs::write(log(&path), "what was answered last").unwrap();
        let why = make(&path).unwrap_err().to_string();
        assert!(why.contains("is missing, but its log") && !path.exists(), "{why}");
        std::fs::write(log(&path), "").unwrap();
        make(&path).unwrap();
    }

    fn give(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// Files as their owner alone has them, in a directory that everybody can enter.
    fn among_others() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        give(dir.path(), 0o755);
        let path = dir.path().join("app.db");
        for file in [&path, &log(&path), &log_index(&path), &beside(&path, LOCK)] {
            std::fs::write(file, "").unwrap();
            give(file, FILE_MODE);
        }
        (dir, path)
    }

    #[test]
    fn what_others_cannot_come_to_and_the_lock_are_no_cause_for_alarm() {
        let (dir, path) = among_others();
        give(&beside(&path, LOCK), 0o644);
        assert_eq!(exposed(&path), None, "the lock is empty");
        give(&path, 0o644);
        assert!(exposed(&path).is_some());
        for (mode, is_told) in [(0o700, false), (0o744, false), (0o711, true), (0o710, true), (0o701, true)] {
            give(dir.path(), mode);
            assert_eq!(exposed(&path).is_some(), is_told, "{mode:o}");
        }
        // A directory farther up hides it as well.
        give(dir.path(), 0o700);
        let inner = dir.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        give(&inner, 0o755);
        let deep = inner.join("app.db");
        std::fs::write(&deep, "").unwrap();
        give(&deep, 0o644);
        assert_eq!(exposed(&deep), None);
        // A link in such a directory leads to a file that others find without it.
        let link = dir.path().join("link.db");
        let (_elsewhere, target) = among_others();
        give(&target, 0o644);
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(exposed(&link).is_some());
    }

    #[test]
    fn what_others_can_read_stays_and_is_told_with_the_remedy() {
        let (_dir, path) = among_others();
        give(&path, 0o640);
        give(&log(&path), 0o604);
        make(&path).unwrap();
        assert_eq!(mode(&path), 0o640);
        let told = exposed(&path).unwrap();
        let remedy = format!("`chmod 600 {} {}`", path.display(), log(&path).display());
        assert!(told.ends_with(&remedy), "{told}");
    }
}
