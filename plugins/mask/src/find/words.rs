//! What the words before a number say about it: `phone: 4155550132` is one, `order 415-555-0132` is none.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

use super::edge::is_word_byte;
use super::ids::Scheme;

/// What words say, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hint(u64);

const PHONE: u64 = 1 << 63;
const NETWORK: u64 = 1 << 62;
const VERSION: u64 = 1 << 61;
/// An order, a part, a size: what follows is no person's number.
const REFERENCE: u64 = 1 << 60;
/// What follows is the address of all hosts of a network.
const BROADCAST: u64 = 1 << 55;
/// A place in a stream or a count: what follows is a number of a machine, and no card.
const COUNTER: u64 = 1 << 56;
/// `call`: what follows may be a number to dial.
const CALL: u64 = 1 << 57;
/// Some `id`: no telephone number, but perhaps one of a person.
const SOME_ID: u64 = 1 << 58;
/// An identity card or tax number of whatever country.
const ANY_ID: u64 = 1 << 59;

/// How far back words are looked for, in bytes: about six words.
const REACH: usize = 56;
/// Words without a meaning that may stand between a word and its number.
const UNKNOWN: usize = 2;

impl Hint {
    pub(crate) const NONE: Hint = Hint(0);

    pub(crate) fn phone(self) -> bool {
        self.0 & PHONE != 0
    }

    pub(crate) fn call(self) -> bool {
        self.0 & CALL != 0
    }

    pub(crate) fn network(self) -> bool {
        self.0 & NETWORK != 0
    }

    pub(crate) fn version(self) -> bool {
        self.0 & VERSION != 0
    }

    pub(crate) fn broadcast(self) -> bool {
        self.0 & BROADCAST != 0
    }

    pub(crate) fn counter(self) -> bool {
        self.0 & COUNTER != 0
    }

    /// The words say that this is the number of something else than a person.
    pub(crate) fn against(self) -> bool {
        self.0 & (REFERENCE | VERSION) != 0
    }

    /// The words do not go with a number that only its shape tells.
    pub(crate) fn doubtful(self) -> bool {
        self.against() || self.0 & SOME_ID != 0
    }

    pub(crate) fn id(self, scheme: Scheme) -> bool {
        self.0 & (ANY_ID | scheme.bit()) != 0
    }

    /// The very word of this scheme, not only `id card`.
    pub(crate) fn exactly(self, scheme: Scheme) -> bool {
        self.0 & scheme.bit() != 0
    }

    /// Numbers behind these words belong to a person.
    pub(crate) fn about_person(self) -> bool {
        self.phone() || self.any_id()
    }

    fn any_id(self) -> bool {
        self.0 & !(PHONE | NETWORK | VERSION | REFERENCE | SOME_ID | CALL | BROADCAST | COUNTER) != 0
    }

    /// What the words before `at` say, or else the key of the value.
    pub(crate) fn before(text: &str, at: usize, key: Hint) -> Hint {
        match look_back(text, at) {
            Hint::NONE => key,
            hint => hint,
        }
    }

    /// What an attribute's key says about its value.
    pub(crate) fn of_key(key: &str) -> Hint {
        look_back(key, key.len())
    }
}

fn look_back(text: &str, at: usize) -> Hint {
    let mut floor = at.saturating_sub(REACH);
    while !text.is_char_boundary(floor) {
        floor += 1;
    }
    let bytes = text.as_bytes();
    let mut end = at;
    let mut unknown = 0;
    let mut assigned = false;
    let mut seen = false;
    // `id` alone is a reference, `tax id` is not.
    let mut id = false;
    while end > floor {
        let byte = bytes[end - 1];
        if !is_word_byte(byte) {
            match byte {
                b'\n' | b'@' | b'[' | b']' | b'{' | b'}' | b'<' | b'>' | b'*' | b';' | b'|' | b'&' | b',' => break,
                b'=' => {
                    if assigned && seen {
                        break;
                    }
                    assigned = true;
                }
                b' ' if assigned && seen => break,
                _ => {}
            }
            end -= 1;
            continue;
        }
        let whole = word_start(text, floor, end, false);
        let mut word = &text[whole..end];
        let mut said = meaning(word);
        // `IdNr` is a word, `phoneNumber` is two.
        if matches!(said, Meaning::Unknown) {
            let start = word_start(text, floor, end, true);
            if start != whole {
                word = &text[start..end];
                said = meaning(word);
            }
            end = start;
        } else {
            end = whole;
        }
        seen = true;
        match said {
            Meaning::Filler => {}
            Meaning::Id => id = true,
            Meaning::Is(hint) if id && !hint.any_id() && !hint.against() => return Hint(SOME_ID),
            Meaning::Is(hint) => {
                // A reference counts right before the number only.
                return if hint.against() && !hint.version() && unknown > 0 {
                    Hint::NONE
                } else {
                    hint
                };
            }
            Meaning::Stop => return Hint::NONE,
            Meaning::Unknown if id => return Hint(SOME_ID),
            // Behind other words, a number before is the one that `version` is about.
            Meaning::Unknown if unknown > 0 && word.ends_with(|c: char| c.is_ascii_digit()) => return Hint::NONE,
            Meaning::Unknown => {
                unknown += 1;
                if unknown > UNKNOWN {
                    return Hint::NONE;
                }
            }
        }
    }
    if id { Hint(SOME_ID) } else { Hint::NONE }
}

/// With `humps` words begin where a capital follows a small letter; a number with its dots is one word.
fn word_start(text: &str, floor: usize, end: usize, humps: bool) -> usize {
    let bytes = text.as_bytes();
    let number = bytes[end - 1].is_ascii_digit();
    let mut start = end;
    while start > floor {
        let byte = bytes[start - 1];
        let inside = if number {
            byte.is_ascii_digit() || byte == b'.'
        } else {
            is_word_byte(byte) && byte != b'_' && !byte.is_ascii_digit()
        };
        if !inside {
            break;
        }
        let hump = humps && start < end && byte.is_ascii_lowercase() && bytes[start].is_ascii_uppercase();
        if hump {
            break;
        }
        start -= 1;
    }
    if start == end { end - 1 } else { start }
}

#[derive(Clone, Copy, Debug)]
enum Meaning {
    Filler,
    Id,
    Is(Hint),
    Stop,
    Unknown,
}

/// The table of words, to be asked with one look.
static MEANINGS: LazyLock<HashMap<&'static str, Meaning, BuildHasherDefault<Letters>>> = LazyLock::new(|| {
    let each = |(meaning, words): &'static (Meaning, &str)| words.split(' ').map(|word| (word, *meaning));
    WORDS.iter().flat_map(each).collect()
});

/// A hash of short words: FNV-1a. Nobody gains by words that collide, as the table is ours.
struct Letters(u64);

impl Default for Letters {
    fn default() -> Self {
        Letters(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Letters {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn meaning(word: &str) -> Meaning {
    let mut small = [0u8; REACH];
    let lower;
    let word = if word.is_ascii() && word.len() <= small.len() {
        let small = &mut small[..word.len()];
        // Byte by byte: to copy so few is a call of the host's.
        for (to, byte) in small.iter_mut().zip(word.bytes()) {
            *to = byte.to_ascii_lowercase();
        }
        match std::str::from_utf8(small) {
            Ok(word) => word,
            Err(_) => return Meaning::Unknown,
        }
    } else {
        lower = word.to_lowercase();
        &lower
    };
    let unknown = || {
        let has = |part: &str| word.contains(part);
        if word.is_ascii() {
            Meaning::Unknown
        } else if has("电话") || has("手机") || has("電話") || has("携帯") || has("전화") || has("휴대폰")
        {
            Meaning::Is(Hint(PHONE))
        } else if has("身份证") {
            Meaning::Is(Hint(Scheme::CnResidentId.bit()))
        } else {
            Meaning::Unknown
        }
    };
    MEANINGS.get(word).copied().unwrap_or_else(unknown)
}

/// Words in small letters, and what they say.
const WORDS: &[(Meaning, &str)] = &[
    (
        Meaning::Filler,
        "_ number numbers no nr num nummer numero número numéro is was to at on my the of de n your me us an from for \
         unter by º ° nº n° valid value d line card номер e",
    ),
    (Meaning::Stop, "tok"),
    (Meaning::Id, "id ids identifier code"),
    (
        Meaning::Is(Hint(PHONE)),
        "phone phones telephone tel mobile mobiles cell cellphone cellular fax telefon telefono teléfono telefone \
         téléphone tél telefax telefoon handy handynummer telefonnummer rufnummer mobilnummer mobil portable móvil movil \
         celular cellulare msisdn whatsapp sms ph phonenumber caller callback komórka fone telefonu gsm mobiel puhelin \
         телефон телефона тел моб мобильный फ़ोन मोबाइल هاتف جوال viber hotline voicemail tlf tlfn fon puh mobilnr \
         telefonnr",
    ),
    (Meaning::Is(Hint(CALL)), "call dial ring text contact reach"),
    (Meaning::Is(Hint(Scheme::UsSsn.bit())), "ssn ssns itin social security"),
    (Meaning::Is(Hint(Scheme::UkNino.bit())), "nino insurance"),
    (
        Meaning::Is(Hint(Scheme::DeSteuerId.bit())),
        "steuer steuerid idnr tin steueridentifikationsnummer steuernummer",
    ),
    (
        Meaning::Is(Hint(Scheme::DeAusweis.bit())),
        "personalausweis ausweis ausweisnummer personalausweisnummer perso",
    ),
    (
        Meaning::Is(Hint(Scheme::FrNir.bit())),
        "nir sécurité securite sociale insee secu sécu",
    ),
    (Meaning::Is(Hint(Scheme::EsDni.bit())), "dni nie nif"),
    (
        Meaning::Is(Hint(Scheme::ItCodiceFiscale.bit())),
        "fiscale codicefiscale cf",
    ),
    (Meaning::Is(Hint(Scheme::PlPesel.bit())), "pesel"),
    (
        Meaning::Is(Hint(Scheme::NlBsn.bit())),
        "bsn burgerservicenummer sofinummer",
    ),
    (
        Meaning::Is(Hint(Scheme::SePersonnummer.bit() | Scheme::NoFodselsnummer.bit())),
        "personnummer pnr personnr samordningsnummer",
    ),
    (
        Meaning::Is(Hint(Scheme::NoFodselsnummer.bit())),
        "fodselsnummer fødselsnummer fnr",
    ),
    (Meaning::Is(Hint(Scheme::InAadhaar.bit())), "aadhaar aadhar uidai आधार"),
    (Meaning::Is(Hint(Scheme::BrCpf.bit())), "cpf"),
    (
        Meaning::Is(Hint(Scheme::CnResidentId.bit())),
        "身份证 身份证号 身份证号码",
    ),
    (Meaning::Is(Hint(Scheme::FiHetu.bit())), "hetu henkilötunnus"),
    (Meaning::Is(Hint(Scheme::ChAhv.bit())), "ahv avs"),
    (Meaning::Is(Hint(Scheme::ClRut.bit())), "rut run"),
    (Meaning::Is(Hint(Scheme::SgNric.bit())), "nric fin"),
    (
        Meaning::Is(Hint(Scheme::BeNationalNumber.bit() | Scheme::KrRrn.bit())),
        "rijksregisternummer rrn niss insz",
    ),
    (Meaning::Is(Hint(Scheme::KrRrn.bit())), "주민등록번호"),
    (Meaning::Is(Hint(Scheme::TrTckn.bit())), "tckn kimlik tc"),
    (Meaning::Is(Hint(Scheme::CaSin.bit())), "sin nas"),
    (Meaning::Is(Hint(Scheme::DkCpr.bit())), "cpr"),
    (Meaning::Is(Hint(Scheme::CzRodneCislo.bit())), "rodne rodné cislo číslo"),
    (Meaning::Is(Hint(Scheme::MxCurp.bit())), "curp"),
    (
        Meaning::Is(Hint(Scheme::Passport.bit())),
        "passport passnummer reisepass passeport pasaporte passaporto paszport passnr",
    ),
    (
        Meaning::Is(Hint(ANY_ID)),
        "tax taxpayer identity national citizen identification taxid",
    ),
    (
        Meaning::Is(Hint(NETWORK)),
        "ip ipv4 ipv6 addr address client peer remote host src dst source dest destination server connected connection \
         connect login ping proxy gateway dns forwarded port ssh banned blocked ban block ips",
    ),
    (Meaning::Is(Hint(BROADCAST)), "bcast broadcast"),
    (
        Meaning::Is(Hint(REFERENCE | COUNTER)),
        "offset offsets seq sequence seqno lsn xid resourceversion generation",
    ),
    (
        Meaning::Is(Hint(VERSION)),
        "versión versione wersja wersji verze versie versão fassung ausgabe bootloader bios image tag versio версия 版本 \
         バージョン 버전",
    ),
    (
        Meaning::Is(Hint(VERSION)),
        "version ver v versions release build firmware driver kernel revision rev section chapter oid sdk jdk jre upgrade \
         upgraded upgrading downgraded installed installing assembly package schema figure clause paragraph appendix \
         table rfc § python openssl java openjdk ruby php perl gcc curl glibc chrome firefox safari windows ios android \
         macos dotnet npm pip golang openssh chromium webkit",
    ),
    (
        Meaning::Is(Hint(REFERENCE)),
        "order orders ticket tickets invoice sku part serial model isbn issn ref reference case uuid guid tracking batch \
         job request req trace span txn transaction pid tid ports commit asn doi ean gtin upc barcode lot hash sha md5 \
         epoch ts timestamp time date size bytes sn coords lat lon range score duration item product article bestellung \
         auftrag rechnung artikel bestellnummer pedido factura facture commande ordine zamówienie nanos ns ms count total \
         rows row imei imsi iccid snowflake hex thread partition id_order shipment parcel issue bug index key hash_code \
         auftragsnummer rechnungsnummer seriennummer заказ 订单 订单号 注文",
    ),
];
