//! The house: a room imports lower floors only, only `app` sees adapters and kinds, and no file grows into a giant.
//!
//! The floors are read from the table in `src/lib.rs`, the imports from the text of the sources: `crate::…` in `use`
//! and inline, without comments, literals and unit tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Longest file, in lines.
const FILE_MAX: usize = 500;

/// Rooms by name, with their floors.
type Floors = BTreeMap<String, u32>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under `dir`: path from there and text.
fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(dir).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    found
}

/// The rows `| 3 | [`broker`], [`cache`] |` of the table in `src/lib.rs`.
fn floors(lib: &str) -> Floors {
    let mut floors = Floors::new();
    for line in lib.lines().filter_map(|l| l.strip_prefix("//! |")) {
        let mut cells = line.split('|').map(str::trim);
        let Some(Ok(floor)) = cells.next().map(str::parse::<u32>) else { continue };
        for room in cells.next().unwrap_or_default().split(',') {
            let name = room.trim().trim_start_matches("[`").trim_end_matches("`]").to_owned();
            assert!(floors.insert(name.clone(), floor).is_none(), "the table names {name} twice");
        }
    }
    floors
}

/// The code without comments, and with empty literals.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |i| i + 2)
        } else if c == '"' {
            string_end(rest)
        } else if let Some(end) = raw_string_end(rest).filter(|_| !out.ends_with(|c: char| c.is_alphanumeric())) {
            end
        } else if let Some(end) = char_end(rest) {
            end
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        rest = &rest[skip..];
    }
    out
}

fn string_end(rest: &str) -> usize {
    let mut escaped = false;
    for (i, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string_end(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&close).map_or(rest.len(), |i| 1 + hashes + 1 + i + close.len()))
}

/// The end of a character literal; none for a lifetime.
fn char_end(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('\'')?;
    if body.starts_with('\\') {
        return body[2..].find('\'').map(|i| i + 4);
    }
    let c = body.chars().next()?;
    body[c.len_utf8()..].starts_with('\'').then(|| c.len_utf8() + 2)
}

const TEST_MOD: &str = "#[cfg(test)]\nmod ";

/// The code without blocks `#[cfg(test)] mod … {}`, and the names of modules that are test files.
fn without_tests(code: &str) -> (String, Vec<String>) {
    let (mut out, mut names, mut rest) = (String::new(), Vec::new(), code);
    while let Some(at) = rest.find(TEST_MOD) {
        out.push_str(&rest[..at]);
        let after = &rest[at + TEST_MOD.len()..];
        let end = after.find([';', '{']).expect("a module has a body or a file");
        names.push(after[..end].trim().to_owned());
        rest = &after[end..];
        if let Some(body) = rest.strip_prefix('{') {
            names.pop();
            let mut depth = 1;
            let close = body.find(|c| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                depth == 0
            });
            rest = &body[close.expect("a block ends") + 1..];
        }
    }
    out.push_str(rest);
    (out, names)
}

/// The rooms that follow each `crate::` in the code: one, or those of a group.
fn imported(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => drop(rooms.insert(first_name(rest))),
            Some(group) => {
                let (mut depth, mut start) = (0, 0);
                for (i, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        ',' | '}' if depth == 0 => {
                            rooms.insert(first_name(&group[start..i]));
                            start = i + 1;
                            if c == '}' {
                                break;
                            }
                        }
                        '}' => depth -= 1,
                        _ => {}
                    }
                }
            }
        }
    }
    rooms.remove("");
    rooms
}

fn first_name(path: &str) -> String {
    path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// How many modules deep a file is: 1 for `room/mod.rs`, 2 for `room/part.rs`.
fn depth(path: &Path) -> usize {
    path.components().count() - usize::from(path.ends_with("mod.rs"))
}

/// Everything that breaks a rule of the house.
fn violations(floors: &Floors, sources: &[(PathBuf, String)]) -> Vec<String> {
    let mut tests = BTreeSet::new();
    let mut parts = Vec::new();
    for (path, text) in sources {
        let (code, names) = without_tests(&code(text));
        let dir = if path.ends_with("mod.rs") { path.parent().unwrap().to_owned() } else { path.with_extension("") };
        tests.extend(names.iter().map(|n| dir.join(n)));
        parts.push((path, code));
    }
    let mut found = Vec::new();
    for (path, code) in parts {
        if tests.iter().any(|t| path.starts_with(t) || path.with_extension("") == *t) {
            continue;
        }
        let room = path.iter().next().unwrap().to_string_lossy();
        let room = room.trim_end_matches(".rs");
        if room == "lib" || room == "main" {
            continue;
        }
        let file = path.display();
        let Some(mine) = floors.get(room) else {
            found.push(format!("{file}: room {room} is on no floor"));
            continue;
        };
        if code.contains(&"super::".repeat(depth(path))) {
            found.push(format!("{file}: leaves its room by super::, write crate::"));
        }
        for other in imported(&code) {
            match floors.get(&other) {
                _ if other == room => {}
                None => found.push(format!("{file}: imports {other}, which is on no floor")),
                Some(_) if room != "app" && (other == "store" || other == "kinds") => {
                    found.push(format!("{file}: imports {other}, which only app may"));
                }
                Some(theirs) if theirs < mine => {}
                Some(theirs) => {
                    found.push(format!("{file}: {room} (floor {mine}) imports {other} (floor {theirs})"));
                }
            }
        }
    }
    found
}

fn lib() -> String {
    std::fs::read_to_string(root().join("src/lib.rs")).unwrap()
}

#[test]
fn rooms_import_lower_floors_only() {
    let sources = sources(&root().join("src"));
    assert!(sources.len() > 50, "only {} files were found", sources.len());
    let found = violations(&floors(&lib()), &sources);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_table_lists_exactly_the_rooms_there_are() {
    let listed: BTreeSet<String> = floors(&lib()).into_keys().collect();
    let mut there = BTreeSet::new();
    for (path, _) in sources(&root().join("src")) {
        let room = path.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned();
        there.insert(room);
    }
    there.remove("lib");
    there.remove("main");
    assert_eq!(listed, there);
    let declared: BTreeSet<String> =
        lib().lines().filter_map(|l| Some(l.strip_prefix("pub mod ")?.trim_end_matches(';').to_owned())).collect();
    assert_eq!(declared, there);
}

#[test]
fn the_floors_are_those_of_the_design() {
    // Rooms that exist only later are listed, too: they have their place already.
    // Events lie lower than in the first design, because records are written together with them.
    let design = "base 0, config 1, telemetry 2, redis 2, broker 3, cache 3, events 3, records 4, jobs 5, users 5, items 6, orders 7, \
                  notifications 8, store 9, kinds 9, worker 10, scheduler 10, http 10, app 11, cli 12";
    let design: BTreeMap<&str, u32> =
        design.split(", ").map(|p| p.split_once(' ').map(|(r, f)| (r, f.parse().unwrap())).unwrap()).collect();
    for (room, floor) in floors(&lib()) {
        assert_eq!(design.get(room.as_str()), Some(&floor), "{room}");
    }
}

#[test]
fn no_file_is_a_giant() {
    for dir in ["src", "tests"] {
        for (path, text) in sources(&root().join(dir)) {
            let lines = text.lines().count();
            assert!(lines <= FILE_MAX, "{dir}/{} has {lines} lines, at most {FILE_MAX}: split it", path.display());
        }
    }
}

/// What `violations` finds in one made-up file.
fn found_in(path: &str, text: &str) -> Vec<String> {
    violations(&floors(&lib()), &[(PathBuf::from(path), text.to_owned())])
}

#[test]
fn a_violation_is_found() {
    let bad = [
        ("jobs/x.rs", "use crate::http::Problem;"),
        ("jobs/x.rs", "use crate::{base::{clock::Clock, id}, items::Item};"),
        ("base/x.rs", "fn f() { crate::config::load(); }"),
        ("http/routes/x.rs", "use crate::worker;"),
        ("worker/mod.rs", "use crate::{jobs, scheduler::Options};"),
        ("scheduler/due.rs", "pub(crate) use crate::http;"),
        ("http/x.rs", "use crate::store::open;"),
        ("worker/x.rs", "use crate::kinds;"),
        ("cli/x.rs", "use crate::store;"),
        ("attic/mod.rs", "fn f() {}"),
        ("jobs/x.rs", "use crate::attic::Thing;"),
        ("jobs/x.rs", "use super::super::http;"),
        ("jobs/mod.rs", "use super::http;"),
        ("jobs/x.rs", "const A: &str = \"\\\"//\"; use crate::http; // \""),
        ("jobs/x.rs", "const A: char = '\"'; use crate::http; const B: char = '\"';"),
        ("jobs/x.rs", "#[cfg(test)]\nmod tests { fn f() { { } } }\nuse crate::http;"),
    ];
    for (path, text) in bad {
        assert_eq!(found_in(path, text).len(), 1, "{path}: {text}: {:?}", found_in(path, text));
    }
}

#[test]
fn what_is_right_is_not_found() {
    let good = [
        ("jobs/x.rs", "use crate::{base::{self, clock::{Clock, Timestamp}}, broker, jobs::model};"),
        ("jobs/x.rs", "// use crate::http\n/* crate::http */ const A: &str = \"crate::http\";"),
        ("jobs/x.rs", "const A: &str = r#\"\"crate::http\"#; fn f<'a>(a: &'a str) {}"),
        ("jobs/x.rs", "#[cfg(test)]\nmod tests { use crate::http; fn f() { { } } }"),
        ("jobs/a/b.rs", "use super::super::model;"),
        ("app/build.rs", "use crate::{http, kinds, scheduler, store, worker};"),
        ("cli/x.rs", "use crate::app;"),
        ("lib.rs", "pub mod http;"),
        ("main.rs", "use app::cli;"),
        ("jobs/x.rs", "use other_crate::http;"),
    ];
    for (path, text) in good {
        assert_eq!(found_in(path, text), [""; 0], "{path}: {text}");
    }
    let parent = (PathBuf::from("jobs/mod.rs"), "#[cfg(test)]\nmod tests;".to_owned());
    let tests = (PathBuf::from("jobs/tests/deep.rs"), "use crate::http;".to_owned());
    assert_eq!(violations(&floors(&lib()), &[parent, tests]), [""; 0]);
}
