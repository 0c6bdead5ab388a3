//! Checks that a template keeps to the language: Jinja's output, `if` and `for`, in expressions of bounded size.
//!
//! The template library's parser calls itself for each operator and each `elif`, so a long enough
//! chain of them exhausts its thread's stack, which ends the process. The check therefore reads
//! tokens only, in a loop, and runs before anything is parsed, at save and before each compilation.

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
/// Statements that there are.
const STATEMENTS: [&str; 7] = ["if", "elif", "else", "endif", "for", "endfor", "raw"];

/// Refuses what is not part of the language.
///
/// # Errors
/// A sentence that names what is refused and its line.
pub(super) fn check(source: &str) -> Result<(), Fault> {
    let (mut statement, mut operators, mut elifs) = (false, 0, 0);
    for token in tokenize(source, false, SyntaxConfig::default()) {
        let (token, span) = token.map_err(|e| told(&e))?;
        match token {
            Token::VariableStart | Token::BlockStart => operators = 0,
            Token::Ident("elif") if statement => elifs += 1,
            _ if is_counted(&token) => operators += 1,
            _ => {}
        }
        let refused = if operators > OPERATORS_MAX {
            Some(format!("an expression has more than {OPERATORS_MAX} operators and names: write a shorter one"))
        } else if elifs > ELIF_MAX {
            Some(format!("there are more than {ELIF_MAX} `elif`: look the value up in a variable instead"))
        } else {
            refusal(&token, statement)
        };
        if let Some(message) = refused {
            return Err(fault(format!("{message}, in line {}", span.start_line)));
        }
        statement = matches!(token, Token::BlockStart);
    }
    Ok(())
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
            | Token::VariableEnd
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
}
