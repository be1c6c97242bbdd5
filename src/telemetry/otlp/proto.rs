//! The messages of OTLP that traces need, in protobuf's form. Pure. Documents: `trace/v1/trace.proto`, `common/v1/common.proto`,
//! `resource/v1/resource.proto` and `collector/trace/v1/trace_service.proto` of OpenTelemetry's protocol, version 1; the
//! numbers below are the fields' numbers there.
//!
//! Written by hand, since it is little: three kinds of field out, one number in. A batch is written straight from its
//! spans, where generated types would first copy every name and value of it.

use super::span::{Attributes, Kind, Span, Value};

/// What every span of this process has in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// Names and values, `service.name` among them.
    pub attributes: Vec<(String, String)>,
}

/// `ExportTraceServiceRequest`.
#[must_use]
pub fn request(resource: &Resource, spans: &[Span]) -> Vec<u8> {
    let mut message = Message(Vec::with_capacity(spans.len().saturating_mul(384)));
    message.nested(1, |resource_spans| {
        resource_spans.nested(1, |written| {
            for (name, value) in &resource.attributes {
                written.nested(1, |pair| {
                    pair.text(1, name);
                    pair.nested(2, |any| any.text(1, value));
                });
            }
        });
        resource_spans.nested(2, |scope_spans| {
            scope_spans.nested(1, |scope| scope.text(1, env!("CARGO_PKG_NAME")));
            for span in spans {
                scope_spans.nested(2, |written| write(span, written));
            }
        });
    });
    message.0
}

fn write(span: &Span, message: &mut Message) {
    message.bytes(1, &span.trace.to_be_bytes());
    message.bytes(2, &span.id.to_be_bytes());
    if let Some(parent) = span.parent {
        message.bytes(4, &parent.to_be_bytes());
    }
    message.text(5, &span.name);
    message.number(
        6,
        match span.kind {
            Kind::Internal => 1,
            Kind::Server => 2,
            Kind::Client => 3,
        },
    );
    message.fixed64(7, span.begun);
    message.fixed64(8, span.ended);
    attributes(&span.attributes, message);
    if span.failed {
        // Status with the code ERROR.
        message.nested(15, |status| status.number(3, 2));
    }
    message.fixed32(16, span.flags);
}

fn attributes(attributes: &Attributes, message: &mut Message) {
    for (name, value) in attributes {
        message.nested(9, |pair| {
            pair.text(1, name);
            pair.nested(2, |any| match value {
                Value::Text(text) => any.text(1, text),
                Value::Number(number) => any.number(3, number.cast_unsigned()),
            });
        });
    }
}

/// How many spans a collector says that it has rejected, by its `ExportTraceServiceResponse`. One that cannot be read
/// rejects none: it was answered as a success.
#[must_use]
pub fn rejected(response: &[u8]) -> u64 {
    let Some(Field::Bytes(partial_success)) = field(response, 1) else {
        return 0;
    };
    match field(partial_success, 1) {
        Some(Field::Number(rejected)) => rejected,
        Some(Field::Bytes(_)) | None => 0,
    }
}

/// A message that is being written.
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number > 0x7F {
            self.0.push(low_bits(number) | 0x80);
            number >>= 7;
        }
        self.0.push(low_bits(number));
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.varint((field << 3) | wire_type);
    }

    fn number(&mut self, field: u64, number: u64) {
        self.key(field, 0);
        self.varint(number);
    }

    fn fixed64(&mut self, field: u64, number: u64) {
        self.key(field, 1);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn fixed32(&mut self, field: u64, number: u32) {
        self.key(field, 5);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, 2);
        self.varint(wide(bytes.len()));
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    /// A message within this one. Its length stands before it and is known after it, so it is turned to the front.
    fn nested(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        self.key(field, 2);
        let begins = self.0.len();
        write(self);
        let ends = self.0.len();
        self.varint(wide(ends.saturating_sub(begins)));
        let length_bytes = self.0.len().saturating_sub(ends);
        if let Some(tail) = self.0.get_mut(begins..) {
            tail.rotate_right(length_bytes);
        }
    }
}

/// The lowest seven bits.
fn low_bits(number: u64) -> u8 {
    let [lowest, ..] = number.to_le_bytes();
    lowest & 0x7F
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// A field that was read.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The first field of this number, of a number's or a text's kind; `None` where there is none, or no message.
fn field(mut message: &[u8], wanted: u64) -> Option<Field<'_>> {
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        let found = match key & 0b111 {
            0 => Field::Number(take_varint(&mut message)?),
            1 => Field::Bytes(message.split_off(..8)?),
            2 => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                Field::Bytes(message.split_off(..length)?)
            }
            5 => Field::Bytes(message.split_off(..4)?),
            _ => return None,
        };
        if key >> 3 == wanted {
            return Some(found);
        }
    }
    None
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *message.split_off_first()?;
        number |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request with the spans below, as `opentelemetry-proto` 1.45 for Python (generated from the public `.proto`) writes it.
    const KNOWN: &str = "\
        0af5030a270a180a0c736572766963652e6e616d6512080a06e7baa2e58c850a0b0a05656d70747912020a0012c9030a100a\
        0e7061796f75742d7369646563617212ed020a100af7651916cd43dd8448eb211c80319c120800f067aa0ba902b72208b7ad\
        6b71692033312a18504f5354202f7061792f73656e644170695265645061636b30023915cd0f9b76e2fa1841b16892ce76e2\
        fa184a200a19687474702e726573706f6e73652e7374617475735f636f6465120318f7034ad4010a046c6f6e6712cb010ac8\
        0178787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878\
        7878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878\
        7878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878\
        7878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878\
        784a140a056c65617374120b18808080808080808080017a02180285010103000012450a100af7651916cd43dd8448eb211c\
        80319c120800000000000000012a0d6c656467657220696e7365727430013901000000000000004102000000000000008501\
        01010000";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2);
        digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn a_request_is_written_as_others_write_it() {
        let trace = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
        let resource = Resource {
            attributes: vec![
                ("service.name".into(), "红包".into()),
                ("empty".into(), String::new()),
            ],
        };
        let spans = [
            Span {
                trace,
                id: 0x00f0_67aa_0ba9_02b7,
                parent: Some(0xb7ad_6b71_6920_3331),
                flags: 0x301,
                name: "POST /pay/sendApiRedPack".into(),
                kind: Kind::Server,
                begun: 1_800_000_000_123_456_789,
                ended: 1_800_000_000_987_654_321,
                attributes: vec![
                    ("http.response.status_code", 503.into()),
                    ("long", "x".repeat(200).into()),
                    ("least", Value::Number(i64::MIN)),
                ],
                failed: true,
            },
            Span {
                trace,
                id: 1,
                parent: None,
                flags: 0x101,
                name: "ledger insert".into(),
                kind: Kind::Internal,
                begun: 1,
                ended: 2,
                attributes: Vec::new(),
                failed: false,
            },
        ];
        assert_eq!(request(&resource, &spans), bytes(KNOWN));
    }

    #[test]
    fn what_a_collector_rejects_is_read_and_what_is_no_answer_rejects_nothing() {
        for (answer, count) in [
            ("", 0),
            // From the same library: 300 rejected, with a message.
            ("0a0708ac0212026e6f", 300),
            // A field that later versions may add, of each kind, before it.
            ("1001a2010200001902000000000000001d000000000a0308ac02", 300),
            ("0a00", 0),
            ("0a05", 0),
            ("0a0308", 0),
            ("ffffffffffffffffffffff", 0),
            ("0b", 0),
        ] {
            assert_eq!(rejected(&bytes(answer)), count, "{answer}");
        }
    }
}
