//! Renders templates of people who must not be able to hurt the house: no loops without end, no memory without bound, no
//! look at anything but the variables given.
//!
//! The language is Jinja's output, `if` and `for`, with the filters below. Fuel stops long loops and the writer stops long
//! output, but neither sees a value that grows inside an expression (`s ~ s`, forty times) or a captured block. So what can
//! build large values is not part of the language (`language.rs`): `~`, `+`, `*`, `set`, `macro` and the like are refused
//! when a template is saved, and every value is bounded before it is made (`bounds.rs`).

use std::io;

use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value, filters, tests as checks};

use super::{
    bounds::{self, Takes, VALUE_MAX, add_filter, too_large, wrong},
    language,
};
use crate::base::zone::Zones;

/// Steps of one rendering: some milliseconds.
const FUEL: u64 = 100_000;
/// Largest rendered part, in bytes.
pub const OUTPUT_MAX: usize = 256 * 1024;

/// How values are written into a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// As they are: plain text.
    None,
    /// For HTML.
    Html,
    /// As JSON values, quotes included.
    Json,
}

/// What is wrong with a template, or with what it was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// A sentence, with the line.
    pub message: String,
}

pub(super) fn fault(message: impl Into<String>) -> Fault {
    Fault { message: message.into() }
}

/// Error texts of the engine name the template and its line, never a value.
pub(super) fn told(e: &Error) -> Fault {
    let mut text = match e.kind() {
        ErrorKind::OutOfFuel => "takes too many steps".to_owned(),
        ErrorKind::UndefinedError => e.detail().map_or_else(
            || "uses a variable that has no value".to_owned(),
            |d| format!("uses a variable that has no value: {d}"),
        ),
        ErrorKind::WriteFailure => format!("makes more than {OUTPUT_MAX} bytes"),
        ErrorKind::UnknownFilter | ErrorKind::UnknownTest => {
            format!("{} (there are: {})", e.detail().unwrap_or("uses an unknown filter"), FILTERS.join(", "))
        }
        kind => e.detail().map_or_else(|| kind.to_string(), |d| format!("{kind}: {d}")),
    };
    if let Some(line) = e.line() {
        text.push_str(&format!(", in line {line}"));
    }
    fault(text)
}

/// The filters that there are.
pub const FILTERS: [&str; 22] = [
    "abs",
    "capitalize",
    "date",
    "default",
    "escape",
    "first",
    "float",
    "int",
    "join",
    "last",
    "length",
    "lower",
    "minus",
    "plus",
    "replace",
    "round",
    "times",
    "title",
    "tojson",
    "trim",
    "truncate",
    "upper",
];

/// An engine and the parts that were compiled for it. Clones share the language and part ways with their parts.
#[derive(Clone)]
pub struct Engine(Environment<'static>);

/// What a part is called in the engine: the engine asks by the name alone how values are written.
fn name_of(part: &str, escape: Escape) -> String {
    let prefix = match escape {
        Escape::None => "text:",
        Escape::Html => "html:",
        Escape::Json => "json:",
    };
    format!("{prefix}{part}")
}

impl Engine {
    /// An engine without parts, whose times are shown by the clocks of `zones`.
    #[must_use]
    pub fn new(zones: Zones) -> Self {
        let mut env = Environment::empty();
        env.set_fuel(Some(FUEL));
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_recursion_limit(32);
        env.set_auto_escape_callback(|name| match name.split_once(':') {
            Some(("html", _)) => AutoEscape::Html,
            Some(("json", _)) => AutoEscape::Json,
            _ => AutoEscape::None,
        });
        env.set_formatter(bounds::write);
        add_filters(&mut env, zones);
        env.add_test("defined", checks::is_defined);
        env.add_test("none", checks::is_none);
        env.add_test("string", checks::is_string);
        env.add_test("number", checks::is_number);
        env.add_test("odd", checks::is_odd);
        env.add_test("even", checks::is_even);
        Self(env)
    }

    /// Checks a template without rendering it, and answers the variables that it uses.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, source: &str) -> Result<Vec<String>, Fault> {
        language::check(source)?;
        let template = self.0.template_from_named_str("template", source).map_err(|e| told(&e))?;
        let mut names: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        names.sort();
        Ok(names)
    }

    /// Compiles a part, to be rendered as often as wanted.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(&mut self, part: &str, escape: Escape, source: &str) -> Result<(), Fault> {
        // Whatever the store holds: an older version of this program may have allowed more.
        language::check(source)?;
        self.0.add_template_owned(name_of(part, escape), source.to_owned()).map_err(|e| told(&e))
    }

    /// Renders a compiled part.
    ///
    /// # Errors
    /// What is wrong with it or with the variables.
    pub fn render(&self, part: &str, escape: Escape, variables: &Value) -> Result<String, Fault> {
        let template = self.0.get_template(&name_of(part, escape)).map_err(|e| told(&e))?;
        let mut out = Bounded(Vec::new());
        template.render_captured_to(variables.clone(), &mut out).map_err(|e| told(&e))?;
        String::from_utf8(out.0).map_err(|e| fault(e.to_string()))
    }
}

fn add_filters(env: &mut Environment<'static>, zones: Zones) {
    let all: [(&'static str, Takes, Value); 22] = [
        ("abs", Takes::Text, Value::from_function(filters::abs)),
        ("capitalize", Takes::Text, Value::from_function(filters::capitalize)),
        (
            "date",
            Takes::Text,
            Value::from_function(move |time: &str, format: Option<String>, zone: Option<String>| {
                date(&zones, time, format, zone)
            }),
        ),
        ("default", Takes::Part, Value::from_function(default)),
        ("escape", Takes::Any, Value::from_function(filters::escape)),
        ("first", Takes::Part, Value::from_function(filters::first)),
        ("float", Takes::Text, Value::from_function(filters::float)),
        ("int", Takes::Text, Value::from_function(filters::int)),
        ("join", Takes::Any, Value::from_function(join)),
        ("last", Takes::Part, Value::from_function(filters::last)),
        ("length", Takes::Part, Value::from_function(filters::length)),
        ("lower", Takes::Text, Value::from_function(filters::lower)),
        ("minus", Takes::Text, Value::from_function(|a: f64, b: f64| number(a - b))),
        ("plus", Takes::Text, Value::from_function(|a: f64, b: f64| number(a + b))),
        ("replace", Takes::Text, Value::from_function(replace)),
        ("round", Takes::Text, Value::from_function(filters::round)),
        ("times", Takes::Text, Value::from_function(|a: f64, b: f64| number(a * b))),
        ("title", Takes::Text, Value::from_function(filters::title)),
        ("tojson", Takes::Json, Value::from_function(filters::tojson)),
        ("trim", Takes::Text, Value::from_function(filters::trim)),
        ("truncate", Takes::Part, Value::from_function(truncate)),
        ("upper", Takes::Text, Value::from_function(filters::upper)),
    ];
    for (name, takes, filter) in all {
        add_filter(env, name, takes, filter);
    }
}

/// Refuses to hold more than [`OUTPUT_MAX`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_MAX {
            return Err(io::Error::other("too much output"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn bounded(text: String) -> Result<String, Error> {
    if text.len() > VALUE_MAX { Err(too_large()) } else { Ok(text) }
}

/// A whole number where it is one, as people expect of `2|plus(1)`.
fn number(n: f64) -> Value {
    if n.fract() == 0.0 && n.abs() < 9e15 { Value::from(n as i64) } else { Value::from(n) }
}

/// What is missing or none becomes `other`; an empty text if there is no other.
fn default(value: &Value, other: Option<Value>) -> Value {
    if value.is_undefined() || value.is_none() { other.unwrap_or_else(|| Value::from("")) } else { value.clone() }
}

fn join(values: &Value, between: Option<String>) -> Result<String, Error> {
    let between = between.unwrap_or_default();
    let mut out = String::new();
    for (i, value) in values.try_iter()?.enumerate() {
        if i > 0 {
            out.push_str(&between);
        }
        // The whole was weighed before; only what stands between is not in that weight.
        out.push_str(&value.to_string());
        if out.len() > VALUE_MAX {
            return bounded(out);
        }
    }
    Ok(out)
}

fn replace(text: &str, from: &str, to: &str) -> Result<String, Error> {
    let found = text.matches(from).count();
    let size = text.len().saturating_add(found.saturating_mul(to.len()));
    if size > VALUE_MAX { Err(too_large()) } else { Ok(text.replace(from, to)) }
}

/// At most so many characters, the last of them `…` if some were cut.
fn truncate(text: &str, characters: Option<usize>) -> Result<String, Error> {
    // A longer text could not be passed on anyway.
    let most = characters.unwrap_or(255).clamp(1, VALUE_MAX);
    if text.chars().nth(most).is_none() {
        return bounded(text.to_owned());
    }
    bounded(text.chars().take(most - 1).chain(['…']).collect())
}

/// An RFC 3339 time as `format` (strftime; `%Y-%m-%d %H:%M` if none) says, in an IANA time zone (UTC if none).
fn date(zones: &Zones, time: &str, format: Option<String>, zone: Option<String>) -> Result<String, Error> {
    let time: jiff::Timestamp = time.parse().map_err(|e| wrong(format!("`date` needs an RFC 3339 time: {e}")))?;
    let zone = match zone {
        Some(name) => zones.get(&name).ok_or_else(|| wrong(format!("`date`: there is no time zone `{name}`")))?,
        None => jiff::tz::TimeZone::UTC,
    };
    let format = format.unwrap_or_else(|| "%Y-%m-%d %H:%M".to_owned());
    if format.len() > 200 {
        return Err(wrong("`date`: the format is longer than 200 characters"));
    }
    let broken = jiff::fmt::strtime::BrokenDownTime::from(&time.to_zoned(zone));
    let text = broken.to_string(&format).map_err(|e| wrong(format!("`date`: {e}")))?;
    bounded(text)
}

#[cfg(test)]
mod tests {
    use minijinja::value::Serde;
    use serde_json::json;

    use super::*;

    fn text(source: &str, variables: serde_json::Value) -> Result<String, String> {
        render(source, Escape::None, &Value::from(Serde(variables))).map_err(|e| e.message)
    }

    fn render(source: &str, escape: Escape, variables: &Value) -> Result<String, Fault> {
        let mut engine = Engine::new(Zones::bundled());
        engine.compile("part", escape, source)?;
        engine.render("part", escape, variables)
    }

    #[test]
    fn values_are_written_for_their_part() {
        let name = Value::from(Serde(json!({ "name": "<b>\"Ü\"&" })));
        let render = |escape| render("{{ name }}", escape, &name).unwrap();
        assert_eq!(render(Escape::None), "<b>\"Ü\"&");
        assert_eq!(render(Escape::Html), "&lt;b&gt;&quot;Ü&quot;&amp;");
        let written: serde_json::Value = serde_json::from_str(&render(Escape::Json)).unwrap();
        assert_eq!(written, "<b>\"Ü\"&");
    }

    #[test]
    fn the_language_is_jinja_with_few_filters() {
        for (source, made) in [
            ("Hello {{ name }}!", "Hello Ada!"),
            ("{% for i in items %}{{ loop.index }}:{{ i.n }} {% endfor %}", "1:2 2:3 "),
            ("{% if n > 2 %}many{% elif n %}some{% else %}none{% endif %}", "many"),
            ("{{ name|upper|truncate(2) }}", "A…"),
            ("{{ missing|default('x') }}{{ none|default('y') }}", "xy"),
            ("{{ n|plus(1) }} {{ n|times(1.5) }} {{ n|minus(1) }} {{ (n / 2)|round(1) }}", "4 4.5 2 1.5"),
            ("{{ tags|join(', ') }} {{ tags|length }} {{ tags|first }}", "a, b 2 a"),
            ("{{ at|date('%H:%M', 'Europe/Berlin') }} {{ at|date }}", "09:00 2026-11-21 08:00"),
            ("{{ 'a' if n is odd else 'b' }} {{ name|replace('A', 'O') }}", "a Oda"),
            ("{% raw %}{{ as it is ~ }}{% endraw %}", "{{ as it is ~ }}"),
            ("100 % ~ + * in text {# ~ in a comment #}", "100 % ~ + * in text "),
        ] {
            let variables = json!({
                "name": "Ada", "n": 3, "none": null, "items": [{ "n": 2 }, { "n": 3 }], "tags": ["a", "b"],
                "at": "2026-11-21T08:00:00Z",
            });
            assert_eq!(text(source, variables).as_deref(), Ok(made), "{source}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (source, says) in [
            ("\n{{ nobody }}", "no value"),
            ("\n{% if %}", "line 2"),
            ("{{ x|nothing }}", "there are: abs"),
            ("{{ x|upper(", "line 1"),
            ("{% set a = 1 %}", "`{% set %}` is not available"),
            ("{% macro m() %}{% endmacro %}", "`{% macro %}` is not available"),
            ("{% include 'x' %}", "`{% include %}` is not available"),
            ("{{ range(3) }}", "range"),
            ("{{ 'a' ~ 'b' }}", "`~` is not available"),
            ("{{ 'a' * 9 }}", "`*` is not available"),
            ("{{ [1] + [2] }}", "`+` is not available"),
            ("{% for a in x recursive %}{% endfor %}", "recursive"),
            ("{{ env }}", "no value"),
        ] {
            let said = text(source, json!({ "x": "a" })).unwrap_err();
            assert!(said.contains(says), "{source}: {said}");
        }
    }

    #[test]
    fn no_template_takes_long_or_much() {
        let many: Vec<u32> = (0..1000).collect();
        let long = "x".repeat(200_000);
        let deep = "{% for a in many %}".repeat(8) + "x" + &"{% endfor %}".repeat(8);
        let nested =
            format!("{}{}", "{{ ".to_owned() + &"(".repeat(5_000), "1".to_owned() + &")".repeat(5_000) + " }}");
        for source in [
            deep.as_str(),
            "{% for a in many %}{{ long }}{% endfor %}",
            "{{ many|join(long) }}",
            "{{ long|replace('x', long) }}",
            "{{ long|replace('', long) }}",
            &nested,
        ] {
            assert!(text(source, json!({ "many": many, "long": long })).is_err(), "{}", &source[..20]);
        }
    }

    #[test]
    fn variables_are_found() {
        let found =
            Engine::new(Zones::bundled()).check("{{ a.b }}{% for i in list %}{{ i.x }}{{ c }}{% endfor %}").unwrap();
        assert_eq!(found, ["a", "c", "list"]);
    }
}
