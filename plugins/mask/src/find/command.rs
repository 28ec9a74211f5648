//! Passwords that programs are given as one letter: `mysql -phunter2`, `redis-cli -a hunter2`, `curl -u jane:hunter2`.

use std::ops::Range;

use super::judge;
use super::secret::Class;
use super::value::{Ahead, value_at};

/// A program, the letter of its option, and how the password follows.
const OPTIONS: &[(&str, u8, Form)] = &[
    ("mysql", b'p', Form::Attached),
    ("mysqldump", b'p', Form::Attached),
    ("mysqladmin", b'p', Form::Attached),
    ("mysqlimport", b'p', Form::Attached),
    ("mariadb", b'p', Form::Attached),
    ("mariadb-dump", b'p', Form::Attached),
    ("sshpass", b'p', Form::Either),
    ("redis-cli", b'a', Form::Next),
    ("ldapsearch", b'w', Form::Next),
    ("ldapmodify", b'w', Form::Next),
    ("ldapadd", b'w', Form::Next),
    ("mongo", b'p', Form::Next),
    ("mongosh", b'p', Form::Next),
    ("mongodump", b'p', Form::Next),
    ("login", b'p', Form::Next),
    ("curl", b'u', Form::Account),
    ("wget", b'u', Form::Account),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `-pX`
    Attached,
    /// `-p X`
    Next,
    Either,
    /// `-u name:X`
    Account,
}

/// How far before its option a program is looked for, in bytes.
const REACH: usize = 128;

/// The password that follows the space and dash at this place.
pub(super) fn secret(text: &str, space: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let letter = *bytes
        .get(space + 2)
        .filter(|letter| matches!(letter, b'p' | b'a' | b'w' | b'u'))?;
    let next = *bytes.get(space + 3)?;
    let floor = space.saturating_sub(REACH);
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    let named = |(program, option, _): &&(&str, u8, Form)| {
        *option == letter
            && bytes[floor..space]
                .split(|byte| !word(byte))
                .any(|word| word == program.as_bytes())
    };
    let form = OPTIONS.iter().find(named)?.2;
    let start = match (form, next) {
        (Form::Next | Form::Either | Form::Account, b' ') => space + 4,
        (Form::Attached | Form::Either, next) if next != b' ' => space + 3,
        _ => return None,
    };
    let mut value = value_at(text, start, Class::Password, &mut Ahead::default());
    if form == Form::Account {
        value.start += text[value.clone()].find(':')? + 1;
    }
    let given = !text[value.clone()].starts_with('-') && judge::is_password(&text[value.clone()], false);
    given.then_some(value)
}
