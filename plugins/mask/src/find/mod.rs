//! Finds personal data and secrets in text. `find` says exactly what stands in one text; `scan` says quickly which of many
//! texts must be looked at.

mod card;
mod classes;
mod command;
mod edge;
mod email;
mod iban;
pub(crate) mod ids;
mod ip;
pub(crate) mod judge;
mod numbers;
mod phone;
mod run;
mod scan;
pub(crate) mod secret;
mod sixteen;
mod token;
pub(crate) mod value;
mod words;

use memchr::memmem;

pub use ids::Scheme;
pub(crate) use numbers::Schemes;
pub(crate) use phone::country_code as phone_country;
pub(crate) use scan::{LONG, Open, Texts};
pub(crate) use words::Hint;

use crate::action::Marks;
use crate::kind::{Found, Kind};
use classes::Classes;
use numbers::Numbers;
use secret::Class;
use value::Ahead;

/// What stands before an access key of Amazon, which has no shape of its own.
const AMAZON: &[u8] = b"aws_secret_access_key";

/// Findings in one text. Beyond, nobody goes on looking: it is a list of such values, and what is found takes memory.
pub(crate) const MAX_FOUND: usize = 100_000;

/// Digits in the number of an identity card or a passport.
const MIN_DOCUMENT_DIGITS: usize = 3;

/// What the key of a value says about the value.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    pub hint: Hint,
    pub class: Option<Class>,
    /// Masked whatever it is.
    pub always: bool,
    /// Left alone whatever it is.
    pub never: bool,
}

/// A list that takes no more than it should.
struct Findings<'a> {
    list: &'a mut Vec<Found>,
    first: usize,
}

impl Findings<'_> {
    fn push(&mut self, found: Found) {
        if !self.is_full() {
            self.list.push(found);
        }
    }

    fn is_full(&self) -> bool {
        self.list.len() - self.first > MAX_FOUND
    }
}

#[derive(Debug)]
pub(crate) struct Finder {
    schemes: Schemes,
    /// Kinds that are looked for, by rank.
    on: u16,
    numbers: Numbers,
    classes: Classes,
    accounts: Vec<usize>,
    marks: Marks,
    finders: Finders,
}

/// Substrings that announce something, searched for in whole columns.
#[derive(Debug)]
struct Finders {
    bearer: memmem::Finder<'static>,
    dashes: memmem::Finder<'static>,
    option: memmem::Finder<'static>,
    wide_colon: memmem::Finder<'static>,
    escape: memmem::Finder<'static>,
    is: memmem::Finder<'static>,
    passport: memmem::Finder<'static>,
    ausweis: memmem::Finder<'static>,
}

impl Finder {
    pub(crate) fn new(kinds: impl Iterator<Item = Kind>, schemes: Schemes, marks: Marks) -> Self {
        Finder {
            schemes,
            on: kinds.fold(0, |on, kind| on | 1 << kind.rank()),
            numbers: Numbers::default(),
            classes: Classes::default(),
            accounts: Vec::new(),
            marks,
            finders: Finders {
                bearer: memmem::Finder::new("earer "),
                dashes: memmem::Finder::new("--"),
                option: memmem::Finder::new(" -"),
                wide_colon: memmem::Finder::new("："),
                escape: memmem::Finder::new("\\u00"),
                is: memmem::Finder::new("word is "),
                passport: memmem::Finder::new("assport"),
                ausweis: memmem::Finder::new("usweis"),
            },
        }
    }

    /// What the mask wrote itself.
    pub(crate) fn marks(&self) -> &Marks {
        &self.marks
    }

    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.on & 1 << kind.rank() != 0
    }

    /// Learns what the bytes of a text are.
    pub(crate) fn look(&mut self, text: &str) {
        self.classes.read(text.as_bytes());
    }

    /// What the bytes of the text are that was looked at last. Where things stand in a long one is forgotten once it was searched.
    pub(crate) fn seen(&self) -> &Classes {
        &self.classes
    }

    /// Appends what stands in this text, in no order and perhaps overlapping; true if there is more than is worth a list.
    pub(crate) fn find(&mut self, text: &str, facts: Facts, out: &mut Vec<Found>) -> bool {
        self.look(text);
        self.find_seen(text, facts, out)
    }

    /// The same in the text that was looked at last.
    pub(crate) fn find_seen(&mut self, text: &str, facts: Facts, out: &mut Vec<Found>) -> bool {
        let mut all = Findings { list: out, first: 0 };
        all.first = all.list.len();
        self.find_all(text, facts, &mut all);
        let (out, first) = (all.list, all.first);
        let too_many = out.len() - first > MAX_FOUND;
        let mut kept = first;
        let may_be_masked = self.classes.may_be_masked();
        for at in first..out.len() {
            if self.has(out[at].kind) && !(may_be_masked && self.marks.cover(text, out[at])) {
                out.swap(kept, at);
                kept += 1;
            }
        }
        out.truncate(kept);
        too_many
    }

    fn find_all(&mut self, text: &str, facts: Facts, out: &mut Findings<'_>) {
        let bytes = text.as_bytes();
        if facts.class.is_none()
            && let Some(found) = ip::whole_v4(text, &self.classes, facts.hint)
        {
            // Nothing else can be in it.
            out.push(found);
            return;
        }
        let mut classes = std::mem::take(&mut self.classes);
        self.secrets(text, facts, &classes, out);
        if self.has(Kind::Email) && classes.at() {
            let accounts = &self.accounts;
            email::find(
                text,
                |sign| accounts.binary_search(&sign).is_ok(),
                |range| {
                    out.push(Found {
                        start: range.start,
                        end: range.end,
                        kind: Kind::Email,
                    });
                },
            );
        }
        let mut from = 0;
        let runs = classes.digits() >= run::MIN_DIGITS;
        while let Some(run) = runs.then(|| run::next_run(&classes, bytes, from)).flatten() {
            from = run.end;
            numbers::scientific(text, run.clone())
                .into_iter()
                .for_each(|found| out.push(found));
            self.numbers
                .find(&classes, text, run, facts.hint, self.schemes, |found| {
                    out.push(found);
                    !out.is_full()
                });
        }
        if self.has(Kind::Ip) && classes.colon() {
            let mut from = 0;
            while let Some(colon) = ip::next_v6(bytes, from) {
                let (found, next) = ip::v6_around(bytes, colon);
                found.into_iter().for_each(|found| out.push(found));
                from = next;
            }
        }
        iban::find(&classes, bytes, |range| {
            out.push(Found {
                start: range.start,
                end: range.end,
                kind: Kind::Iban,
            })
        });
        let mut from = 0;
        while let Some(word) = token::next_word(&classes, from) {
            from = word.end;
            if let Some(found) = token::identify(bytes, word, self.schemes) {
                from = from.max(found.end);
                out.push(found);
            }
        }
        if classes.digits() >= MIN_DOCUMENT_DIGITS && (classes.letters() || facts.hint != Hint::NONE) {
            self.documents(text, facts, classes.document(), out);
        }
        classes.let_go();
        self.classes = classes;
    }

    /// Passwords, credentials and keys that stand behind a sign or a word.
    fn secrets(&mut self, text: &str, facts: Facts, classes: &Classes, out: &mut Findings<'_>) {
        let bytes = text.as_bytes();
        self.accounts.clear();
        let mut secret = |range: std::ops::Range<usize>, kind| {
            out.push(Found {
                start: range.start,
                end: range.end,
                kind,
            })
        };
        if let Some(class) = facts.class {
            let mut ahead = Ahead::default();
            secret::within(text, 0..text.len(), class, false, &mut ahead, |range| {
                secret(range, Kind::Secret)
            });
        }
        if classes.assigns() {
            let mut ahead = Ahead::default();
            for sign in classes.signs() {
                // An access key of Amazon has a name, and no shape.
                let amazon = || {
                    secret::key_before(text, sign).is_some_and(|key| {
                        let tail = key.len().saturating_sub(AMAZON.len());
                        key.as_bytes()[tail..].eq_ignore_ascii_case(AMAZON)
                    })
                };
                let kind = || if amazon() { Kind::Key } else { Kind::Secret };
                secret::assigned(text, sign, &mut ahead, |range| secret(range, kind()));
                if bytes[sign] == b':' {
                    if let Some((range, account)) = secret::in_url(text, sign) {
                        self.accounts.push(account);
                        secret(range, Kind::Secret);
                    }
                    if let Some(range) = token::slack_hook(bytes, sign) {
                        secret(range, Kind::Key);
                    }
                }
            }
        }
        if classes.wide() {
            let mut ahead = Ahead::default();
            for sign in self.finders.wide_colon.find_iter(bytes) {
                secret::assigned(text, sign, &mut ahead, |range| secret(range, Kind::Secret));
            }
        }
        if classes.bearer() {
            for at in self.finders.bearer.find_iter(bytes) {
                if let Some(range) = secret::bearer(text, at) {
                    secret(range, Kind::Secret);
                }
            }
        }
        if classes.is() {
            for at in self.finders.is.find_iter(bytes) {
                if let Some(range) = secret::told(text, at + 4) {
                    secret(range, Kind::Secret);
                }
            }
        }
        if classes.option() {
            for space in self.finders.option.find_iter(bytes) {
                if let Some(range) = command::secret(text, space) {
                    secret(range, Kind::Secret);
                }
            }
        }
        if classes.quoted_word() {
            for quote in memchr::memchr_iter(b'\'', bytes) {
                if quote > 0
                    && bytes[quote - 1] == b' '
                    && let Some(range) = secret::literal(text, quote - 1)
                {
                    secret(range, Kind::Secret);
                }
            }
        }
        let mut from = 0;
        let dashes = |from: usize| {
            self.finders
                .dashes
                .find(bytes.get(from..).filter(|_| classes.dashes())?)
        };
        while let Some(at) = dashes(from) {
            let at = from + at;
            from = at + 2;
            if let Some(range) = secret::option(text, at) {
                secret(range, Kind::Secret);
            } else if bytes[at..].starts_with(b"-----BEGIN ")
                && let Some(range) = token::private_key(text, at)
            {
                from = range.end;
                secret(range, Kind::Key);
            }
        }
    }

    /// Identity cards and passports whose numbers have letters between the digits, behind their word.
    fn documents(&mut self, text: &str, facts: Facts, may_be_told: bool, out: &mut Findings<'_>) {
        let told = |word: &memmem::Finder<'_>| may_be_told && word.find(text.as_bytes()).is_some();
        let passport = self.schemes.has(Scheme::Passport)
            && (facts.hint.exactly(Scheme::Passport) || told(&self.finders.passport));
        let ausweis = self.schemes.has(Scheme::DeAusweis)
            && (facts.hint.exactly(Scheme::DeAusweis) || told(&self.finders.ausweis));
        if !passport && !ausweis {
            return;
        }
        let mut start = 0;
        for word in text.split(|c: char| !c.is_ascii_alphanumeric()) {
            let at = start;
            start = at + word.len() + text[at + word.len()..].chars().next().map_or(0, char::len_utf8);
            let digits = word.bytes().filter(u8::is_ascii_digit).count();
            let shaped = (7..=10).contains(&word.len())
                && digits >= MIN_DOCUMENT_DIGITS
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
            if !shaped {
                continue;
            }
            let hint = Hint::before(text, at, facts.hint);
            let card =
                ausweis && hint.exactly(Scheme::DeAusweis) && (ids::de_ausweis(word.as_bytes()) || word.len() == 9);
            let pass = passport && hint.exactly(Scheme::Passport) && word.len() <= 9;
            if card || pass {
                out.push(Found {
                    start: at,
                    end: at + word.len(),
                    kind: Kind::NationalId,
                });
            }
        }
    }
}
