//! Bounds every value that a template makes, before it is made.
//!
//! A value is weighed before a filter or the output turns it into text: its weight is at most a few
//! times smaller than the text would be, and weighing stops at the bound. So neither a filter nor a
//! list of many references to one long text can fill the memory. What the filters of one rendering
//! make is bounded together, too, because a list may keep all of it. (Slices copy as well; the language
//! bounds how many there are.)

use minijinja::{
    Environment, Error, ErrorKind, Output, State, Value, escape_formatter,
    value::{Rest, ValueKind, ValueOrKwargs},
};

/// Largest value that a template makes, in bytes.
pub(super) const VALUE_MAX: usize = 256 * 1024;
/// Most text that the filters of one rendering make together, in bytes.
pub(super) const MADE_MAX: usize = 8 * 1024 * 1024;
/// Deepest value that is written; the language and JSON's readers allow less.
const DEPTH_MAX: usize = 512;
/// Where a rendering keeps how much its filters have made.
const MADE: &str = "made";
/// Widest indentation of `tojson`, in spaces.
const INDENT_MAX: usize = 8;

/// What a filter does with the values it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Reads texts and numbers; a list or a map is an error.
    Text,
    /// Writes whatever it is given as text, lists and maps included.
    Any,
    /// As `Any`; the second argument indents each level.
    Json,
    /// Passes parts of what it is given on, and makes nothing larger.
    Part,
}

/// Adds a filter whose arguments and result are bounded.
pub(super) fn add_filter(env: &mut Environment<'static>, name: &'static str, takes: Takes, filter: Value) {
    env.add_filter(name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        for arg in &args {
            check_argument(name, takes, arg, indent(takes, &args)?)?;
        }
        let made = filter.call(state, &args)?;
        match made.as_str().map(str::len) {
            Some(len) if takes != Takes::Part => count(state, len).map(|()| made),
            _ => Ok(made),
        }
    });
}

/// Counts a text that a filter has made.
fn count(state: &mut State<'_, '_>, len: usize) -> Result<(), Error> {
    if len > VALUE_MAX {
        return Err(too_large());
    }
    let before = state.get_temp(MADE).and_then(|made| made.as_usize()).unwrap_or(0);
    let all = before.saturating_add(len);
    if all > MADE_MAX {
        return Err(wrong(format!("the filters make more than {MADE_MAX} bytes in all")));
    }
    state.set_temp(MADE, Value::from(all));
    Ok(())
}

/// Writes a value into the output as its part wants it.
pub(super) fn write(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    weigh(value, 0)?;
    escape_formatter(out, state, value)
}

fn check_argument(name: &str, takes: Takes, value: &Value, indent: usize) -> Result<(), Error> {
    if takes == Takes::Part || value.is_kwargs() {
        return Ok(());
    }
    let container = matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::Plain);
    if takes == Takes::Text && container {
        let kind = value.kind();
        return Err(wrong(format!("`{name}` takes a text or a number, and was given a {kind}")));
    }
    weigh(value, indent)
}

/// How many spaces `tojson` indents each level by.
fn indent(takes: Takes, args: &[Value]) -> Result<usize, Error> {
    if takes != Takes::Json {
        return Ok(0);
    }
    let given = args.iter().skip(1).find_map(|arg| match arg.is_kwargs() {
        true => arg.get_attr("indent").ok().filter(|v| !v.is_undefined()),
        false => Some(arg.clone()),
    });
    let Some(given) = given else { return Ok(0) };
    match (given.kind(), given.as_usize()) {
        (ValueKind::Bool, _) => Ok(if given.is_true() { 2 } else { 0 }),
        (_, Some(n)) if n <= INDENT_MAX => Ok(n),
        _ => Err(wrong(format!("`tojson` indents by 0 to {INDENT_MAX} spaces"))),
    }
}

/// Refuses a value whose text would be larger than [`VALUE_MAX`].
///
/// # Errors
/// A sentence with the bound.
pub(super) fn weigh(value: &Value, indent: usize) -> Result<(), Error> {
    let mut left = VALUE_MAX;
    match spend(value, indent, 0, &mut left)? {
        true => Ok(()),
        false => Err(too_large()),
    }
}

/// Takes the weight of `value` off `left`; false when nothing is left.
fn spend(value: &Value, indent: usize, depth: usize, left: &mut usize) -> Result<bool, Error> {
    if depth > DEPTH_MAX {
        return Err(wrong(format!("a value is nested more than {DEPTH_MAX} deep")));
    }
    let mut take = |weight: usize| {
        let rest = left.checked_sub(weight);
        *left = rest.unwrap_or(0);
        rest.is_some()
    };
    if let Some(text) = value.as_str() {
        return Ok(take(text.len()));
    }
    match value.kind() {
        ValueKind::Number => Ok(take(digits(value))),
        ValueKind::Bytes => Ok(take(value.as_bytes().map_or(0, <[u8]>::len))),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            let line = 2 + indent * (depth + 1);
            for item in value.try_iter()? {
                // The keys of a map come by iteration, its values by them.
                let inner = match value.kind() {
                    ValueKind::Map => Some(value.get_item(&item)?),
                    _ => None,
                };
                let room = left.checked_sub(line);
                *left = room.unwrap_or(0);
                if room.is_none() || !spend(&item, indent, depth + 1, left)? {
                    return Ok(false);
                }
                if let Some(inner) = inner
                    && !spend(&inner, indent, depth + 1, left)?
                {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        _ => Ok(take(8)),
    }
}

/// How long a number is when it is written out; very large and very small fractions have many digits.
fn digits(value: &Value) -> usize {
    match f64::try_from(value.clone()) {
        Ok(n) if n != 0.0 && !(1e-15..1e18).contains(&n.abs()) => 330,
        _ => 20,
    }
}

pub(super) fn too_large() -> Error {
    wrong(format!("a value is larger than {VALUE_MAX} bytes"))
}

pub(super) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

#[cfg(test)]
mod tests {
    use minijinja::value::Serde;
    use serde_json::{Value as Json, json};

    use super::super::engine::{Engine, Escape};
    use super::*;
    use crate::base::zone::Zones;

    fn render(source: &str, escape: Escape, variables: Json) -> Result<String, String> {
        let mut engine = Engine::new(Zones::bundled());
        engine.compile("part", escape, source).unwrap();
        engine.render("part", escape, &Value::from(Serde(variables))).map_err(|e| e.message)
    }

    #[test]
    fn no_value_is_larger_than_its_bound() {
        let text = "\"".repeat(VALUE_MAX / 2 + 1);
        let fractions = vec![1e300; VALUE_MAX / 330 + 1];
        let variables = json!({ "text": text, "two": [text, text], "fractions": fractions });
        for (source, escape) in [
            ("{{ [text, text] }}", Escape::None),
            ("{{ [text, text] }}", Escape::Html),
            ("{{ {'a': text, 'b': text} }}", Escape::Json),
            ("{{ [[text], [text]]|tojson|length }}", Escape::None),
            ("{{ {'a': [text], 'b': text}|tojson|length }}", Escape::None),
            ("{{ two|join|length }}", Escape::None),
            ("{{ two|escape|length }}", Escape::None),
            ("{{ text|tojson|length }}", Escape::None),
            ("{{ text|escape|length }}", Escape::None),
            ("{{ fractions|join|length }}", Escape::None),
        ] {
            let said = render(source, escape, variables.clone()).unwrap_err();
            assert!(said.contains("larger than 262144 bytes"), "{source}: {said}");
        }
        assert_eq!(
            render("{{ text|length }}", Escape::None, variables.clone()).unwrap(),
            (VALUE_MAX / 2 + 1).to_string()
        );
        assert_eq!(render("{{ two|last|first }}", Escape::None, variables).unwrap(), "\"");
    }

    #[test]
    fn a_chain_of_filters_cannot_outgrow_the_bound() {
        let quotes = json!({ "q": "\"".repeat(100) });
        let chain = |n: usize| format!("{{{{ q{}|length }}}}", "|tojson".repeat(n));
        assert_eq!(render(&chain(2), Escape::None, quotes.clone()).unwrap(), "406");
        let said = render(&chain(13), Escape::None, quotes).unwrap_err();
        assert!(said.contains("larger than"), "{said}");
    }

    #[test]
    fn what_the_filters_of_one_rendering_make_is_bounded_together() {
        let most = MADE_MAX / VALUE_MAX;
        let variables = |n: usize| json!({ "text": "x".repeat(VALUE_MAX), "many": vec![0; n] });
        let source = "{% for i in many %}{{ text|upper|length }}{% endfor %}";
        assert!(render(source, Escape::None, variables(most)).is_ok());
        let said = render(source, Escape::None, variables(most + 1)).unwrap_err();
        assert!(said.contains("8388608 bytes in all"), "{said}");
    }

    #[test]
    fn indentation_counts_and_is_bounded() {
        let flat = json!({ "list": vec![1; 9_000] });
        let made = |source: &str| render(source, Escape::None, flat.clone());
        assert!(made("{{ list|tojson(true)|length }}").is_ok());
        for (source, says) in [
            ("{{ list|tojson(8)|length }}", "larger than"),
            ("{{ list|tojson(indent=8)|length }}", "larger than"),
            ("{{ list|tojson(9) }}", "0 to 8"),
            ("{{ list|tojson(indent=9) }}", "0 to 8"),
        ] {
            let said = made(source).unwrap_err();
            assert!(said.contains(says), "{source}: {said}");
        }
    }

    #[test]
    fn text_filters_take_texts_and_numbers() {
        let variables = json!({ "list": ["a"], "map": {"a": 1}, "n": 7, "long": "x".repeat(VALUE_MAX + 1) });
        for filter in ["upper", "lower", "title", "capitalize", "trim", "replace('a', 'b')", "int", "round"] {
            for value in ["list", "map"] {
                let said = render(&format!("{{{{ {value}|{filter} }}}}"), Escape::None, variables.clone()).unwrap_err();
                assert!(said.contains("takes a text or a number"), "{value}|{filter}: {said}");
            }
        }
        assert_eq!(render("{{ n|upper }}", Escape::None, variables.clone()).unwrap(), "7");
        assert_eq!(render("{{ long|truncate(2) }}", Escape::None, variables.clone()).unwrap(), "x…");
        assert!(render("{{ long|upper }}", Escape::None, variables.clone()).unwrap_err().contains("larger"));
        assert!(render("{{ long|truncate(900000) }}", Escape::None, variables).unwrap_err().contains("larger"));
    }
}
