//! Checks that a template keeps to the language: Jinja's output, `if` and `for`, in expressions of bounded size.
//!
//! The template library's parser calls itself for each operator and each `elif`, so a long enough
//! chain of them exhausts its thread's stack, which ends the process. The same holds of values that
//! are nested deep, which lists in brackets make, one more level for each `for` around them; and a
//! list of many slices holds as many copies of a text. The check therefore reads tokens only, in a
//! loop, and runs before anything is parsed, at save and before each compilation.

use minijinja::{
    machinery::{Token, tokenize},
    syntax::SyntaxConfig,
};

use super::engine::{Fault, fault, told};

/// Most operators, brackets and names between one pair of tag delimiters. Literals, commas and
/// colons are not counted: they make no call of the parser deeper.
pub(super) const OPERATORS_MAX: usize = 200;
/// Most `elif` in one part.
pub(super) const ELIF_MAX: usize = 100;
/// Most `for` within each other.
pub(super) const LOOPS_MAX: usize = 10;
/// Most brackets, parentheses and braces within each other.
pub(super) const BRACKETS_MAX: usize = 20;
/// Most colons of slices (`text[0:9]`) in one part: each slice copies what it cuts out.
pub(super) const SLICES_MAX: usize = 20;
/// Statements that there are.
const STATEMENTS: [&str; 7] = ["if", "elif", "else", "endif", "for", "endfor", "raw"];

/// Refuses what is not part of the language.
///
/// # Errors
/// A sentence that names what is refused and its line.
pub(super) fn check(source: &str) -> Result<(), Fault> {
    let (mut statement, mut size) = (false, Size::default());
    for token in tokenize(source, false, SyntaxConfig::default()) {
        let (token, span) = token.map_err(|e| told(&e))?;
        size.note(&token, statement);
        if let Some(message) = size.refusal().or_else(|| refusal(&token, statement)) {
            return Err(fault(format!("{message}, in line {}", span.start_line)));
        }
        statement = matches!(token, Token::BlockStart);
    }
    Ok(())
}

/// How much of what is bounded there has been so far.
#[derive(Default)]
struct Size {
    /// In this expression.
    operators: usize,
    /// Those open in this expression: the opening ones.
    brackets: Vec<char>,
    /// Those open here.
    loops: usize,
    elifs: usize,
    slices: usize,
}

impl Size {
    fn note(&mut self, token: &Token<'_>, statement: bool) {
        match token {
            Token::VariableStart | Token::BlockStart => (self.operators, self.brackets) = (0, Vec::new()),
            Token::Ident("elif") if statement => self.elifs += 1,
            Token::Ident("for") if statement => self.loops += 1,
            Token::Ident("endfor") if statement => self.loops = self.loops.saturating_sub(1),
            // In braces it stands between a key and its value.
            Token::Colon if self.brackets.last() == Some(&'[') => self.slices += 1,
            _ => {}
        }
        match token {
            Token::BracketOpen => self.brackets.push('['),
            Token::ParenOpen => self.brackets.push('('),
            Token::BraceOpen => self.brackets.push('{'),
            Token::BracketClose | Token::ParenClose | Token::BraceClose => drop(self.brackets.pop()),
            _ => {}
        }
        self.operators += usize::from(is_counted(token));
    }

    fn refusal(&self) -> Option<String> {
        if self.operators > OPERATORS_MAX {
            Some(format!("an expression has more than {OPERATORS_MAX} operators and names: write a shorter one"))
        } else if self.brackets.len() > BRACKETS_MAX {
            Some(format!("there are more than {BRACKETS_MAX} brackets within each other"))
        } else if self.loops > LOOPS_MAX {
            Some(format!("there are more than {LOOPS_MAX} `for` within each other"))
        } else if self.elifs > ELIF_MAX {
            Some(format!("there are more than {ELIF_MAX} `elif`: look the value up in a variable instead"))
        } else if self.slices > SLICES_MAX {
            Some(format!("there are more than {SLICES_MAX} colons of slices"))
        } else {
            None
        }
    }
}

/// Why the language lacks this token, where it does. `statement` says that the token opens a statement.
fn refusal(token: &Token<'_>, statement: bool) -> Option<String> {
    match token {
        Token::Ident(word) if statement && !STATEMENTS.contains(word) => {
            Some(format!("`{{% {word} %}}` is not available; there are if and for"))
        }
        Token::Ident("recursive") => Some("`recursive` is not available".to_owned()),
        Token::Tilde => Some("`~` is not available: write {{ a }}{{ b }}".to_owned()),
        Token::Plus => Some("`+` is not available: write {{ a|plus(b) }} for numbers".to_owned()),
        Token::Mul | Token::Pow => Some("`*` is not available: write {{ a|times(b) }} for numbers".to_owned()),
        _ => None,
    }
}

fn is_counted(token: &Token<'_>) -> bool {
    !matches!(
        token,
        Token::TemplateData(_)
            | Token::VariableStart
            | Token::VariableEnd
            | Token::BlockStart
            | Token::BlockEnd
            | Token::Str(_)
            | Token::String(_)
            | Token::Int(_)
            | Token::Int128(_)
            | Token::Float(_)
            | Token::Comma
            | Token::Colon
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{{ a - a - a … }}` with `n` operators and names in all.
    fn chain(n: usize) -> String {
        let minuses = " - a".repeat((n - 1) / 2);
        format!("{{{{ a{minuses} }}}}")
    }

    #[test]
    fn an_expression_has_a_bounded_number_of_operators() {
        assert_eq!(check(&chain(OPERATORS_MAX - 1)), Ok(()));
        for long in [
            chain(OPERATORS_MAX + 1),
            format!("{{{{ {}a }}}}", "not ".repeat(OPERATORS_MAX)),
            format!("{{{{ a{} }}}}", "|trim".repeat(OPERATORS_MAX / 2)),
            format!("{{% if a{} %}}x{{% endif %}}", ".b".repeat(OPERATORS_MAX / 2)),
            format!("\n{{{{ a{} }}}}", "[0]".repeat(OPERATORS_MAX / 2)),
        ] {
            let said = check(&long).unwrap_err().message;
            assert!(said.contains("more than 200 operators") && said.contains("line"), "{said}");
        }
        let many = chain(OPERATORS_MAX - 1).repeat(50);
        assert_eq!(check(&many), Ok(()), "the bound is one expression's, not a template's");
        let list = format!("{{% for c in [{}] %}}{{{{ c }}}}{{% endfor %}}", "'x', 1, ".repeat(500));
        assert_eq!(check(&list), Ok(()), "literals and commas are not counted");
    }

    #[test]
    fn a_part_has_a_bounded_number_of_elif() {
        let of = |n: usize| format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}x".repeat(n));
        assert_eq!(check(&of(ELIF_MAX)), Ok(()));
        assert!(check(&of(ELIF_MAX + 1)).unwrap_err().message.contains("more than 100 `elif`"));
    }

    #[test]
    fn values_cannot_be_nested_deep_and_slices_are_few() {
        let loops = |n: usize| format!("{}x{}", "{% for a in b %}".repeat(n), "{% endfor %}".repeat(n));
        assert_eq!(check(&loops(LOOPS_MAX)), Ok(()));
        assert_eq!(check(&loops(LOOPS_MAX).repeat(20)), Ok(()), "those that have ended are not counted");
        assert!(check(&loops(LOOPS_MAX + 1)).unwrap_err().message.contains("10 `for`"));
        for (open, close) in [("[", "]"), ("(", ")"), ("{'a': ", "}")] {
            let nested = |n: usize| format!("{{{{ {}a{} }}}}", open.repeat(n), close.repeat(n));
            assert_eq!(check(&nested(BRACKETS_MAX)), Ok(()));
            assert!(check(&nested(BRACKETS_MAX + 1)).unwrap_err().message.contains("20 brackets"));
        }
        let slices = |n: usize| "{{ a[1:] }}".repeat(n);
        assert_eq!(check(&slices(SLICES_MAX)), Ok(()));
        assert!(check(&slices(SLICES_MAX + 1)).unwrap_err().message.contains("20 colons"));
        assert_eq!(check(&format!("{{{{ [{}] }}}}", "{'a': 1}, ".repeat(50))), Ok(()), "keys are no slices");
    }
}
