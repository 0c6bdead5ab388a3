//! Looks at a database without opening it for good: makes no file, migrates nothing, takes no lock
//! that a running process would notice.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Access, access};

use super::{
    super::Found,
    file,
    migrate::{self, Contents},
};
use crate::base::{probe::Unfit, store::StoreError};

/// Looks what is at an absolute path, and whether it could be opened.
pub(in crate::store) fn look(path: &Path) -> Result<Found, Unfit> {
    let at = path.display();
    let refused = |why: String| Err(Unfit::Refused(why));
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => {
            if let Some(why) = file::orphan(path) {
                return refused(why);
            }
            let above = nearest(path);
            return match access(&above, Access::WRITE_OK | Access::EXEC_OK) {
                Ok(()) if above.is_dir() => Ok(Found::default()),
                _ => refused(format!(
                    "there is no database at {at}, and it cannot be made: `{}` is not a directory that this user may \
                     write to",
                    above.display()
                )),
            };
        }
        Err(e) => return refused(format!("cannot look for a database at {at} (store.url): {e}")),
    }
    for (what, needed) in [(path, Access::READ_OK | Access::WRITE_OK), (&nearest(path), Access::WRITE_OK)] {
        if let Err(e) = access(what, needed) {
            return refused(format!("cannot write `{}`, as store.url needs: {e}", what.display()));
        }
    }
    match contents(path) {
        Ok(contents) => {
            let exists = contents != Contents::Nothing || file::has_log(path);
            Ok(Found { exists, warnings: file::exposed(path).into_iter().collect() })
        }
        Err(StoreError::Unavailable(e)) => Err(Unfit::Unavailable(e)),
        Err(StoreError::Internal(e) | StoreError::Corrupt(e)) => refused(e),
    }
}

/// The nearest thing above a path that there is.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors().skip(1).find(|above| above.exists()).unwrap_or(path).to_owned()
}

fn contents(path: &Path) -> Result<Contents, StoreError> {
    let (name, flags) = if file::log(path).exists() && file::log_index(path).exists() {
        (path.to_owned(), OpenFlags::SQLITE_OPEN_READ_ONLY)
    } else {
        // To read a log SQLite makes the file by which connections share it; of a database that is
        // said not to change it reads the one file, and makes none.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        (PathBuf::from(unchanging(path)), flags)
    };
    let conn = Connection::open_with_flags(name, flags).map_err(|e| migrate::unusable(path, &e))?;
    migrate::check(&conn, path)
}

/// The URI that tells SQLite that nobody changes the file.
fn unchanging(path: &Path) -> std::ffi::OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut uri = b"file:".to_vec();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'?' | b'#' | b'%' => uri.extend(format!("%{byte:02x}").into_bytes()),
            _ => uri.push(*byte),
        }
    }
    uri.extend(b"?immutable=1");
    std::ffi::OsString::from_vec(uri)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::store::{Sync, sqlite::Sqlite};

    fn files(dir: &Path) -> BTreeMap<std::ffi::OsString, u64> {
        let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
        entries.map(|e| (e.file_name(), e.metadata().unwrap().len())).collect()
    }

    /// Looks, and proves that the look made and changed nothing.
    fn seen(path: &Path) -> Result<Found, Unfit> {
        let dir = path.ancestors().find(|above| above.is_dir() && *above != path).unwrap().to_owned();
        let before = files(&dir);
        let seen = look(path);
        assert_eq!(files(&dir), before, "{seen:?}");
        seen
    }

    #[test]
    fn a_look_tells_what_is_there_and_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("odd ?#% name.db");
        let exists = |path: &Path| seen(path).unwrap().exists;
        assert!(!exists(&path) && !exists(&dir.path().join("a/b/app.db")));
        std::fs::write(dir.path().join("empty.db"), "").unwrap();
        assert!(!exists(&dir.path().join("empty.db")));
        let open = Sqlite::open(&path, Sync::Normal).unwrap();
        let fine = Ok(Found { exists: true, warnings: vec![] });
        assert_eq!(seen(&path), fine, "beside a process that has it open");
        drop(Arc::into_inner(open).unwrap());
        assert_eq!(seen(&path), fine, "when it is closed");
    }

    #[test]
    fn a_look_refuses_what_an_opening_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text.db");
        std::fs::write(&text, "Dear diary, this is no database.\n".repeat(300)).unwrap();
        for (path, part) in
            [(text.clone(), "not a database"), (text.join("app.db"), "text.db"), (dir.path().to_owned(), "cannot use")]
        {
            let Err(Unfit::Refused(why)) = seen(&path) else { panic!("{} is taken", path.display()) };
            assert!(why.contains(part), "{why}");
            assert!(Sqlite::open(&path, Sync::Normal).is_err());
        }
    }
}
