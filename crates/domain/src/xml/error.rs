//! Why a body is not an XML message of the contract's form, for operators in English and for callers in Chinese.

use crate::fields::FieldsError;
use crate::text::named;

/// Why a text is not flat XML. `Display` says it in English to operators, since upstreams answer XML too;
/// [`XmlError::chinese`] says it to callers.
#[derive(Debug, thiserror::Error)]
pub enum XmlError {
    /// The text ends before the root element does.
    #[error("the XML ends too early")]
    Early,
    /// XML's grammar is broken.
    #[error("not well-formed XML: {error}")]
    IllFormed {
        /// What the library says.
        error: quick_xml::Error,
        /// Where, in bytes from the text's start.
        at: u64,
    },
    /// A character that XML 1.0 forbids.
    #[error("the XML holds the character U+{:04X}, which XML 1.0 forbids", u32::from(*.0))]
    Forbidden(char),
    /// A field refers to a character that XML 1.0 forbids.
    #[error("{field} holds the character U+{:04X}, which XML 1.0 forbids", u32::from(*.character))]
    ForbiddenIn {
        /// The field.
        field: String,
        /// The character.
        character: char,
    },
    /// The XML declaration names another encoding.
    #[error("the XML declares an encoding other than UTF-8")]
    Charset,
    /// An element has attributes.
    #[error("elements must not have attributes")]
    Attributes,
    /// An element's name is not a field's.
    #[error("an element has a name that is not one")]
    Name,
    /// A field holds elements.
    #[error("{0} must hold text, not elements")]
    Elements(String),
    /// A field uses an entity that only a DTD could declare.
    #[error("{0} uses an entity that is not one of XML's five")]
    Entity(String),
    /// A field holds a character reference that is none.
    #[error("{0} holds a broken character reference")]
    Reference(String),
    /// Markup or text where the contract has none.
    #[error("{0} {1} is not allowed")]
    Unexpected(Markup, Position),
    /// A field occurs twice, or there are too many.
    #[error(transparent)]
    Fields(#[from] FieldsError),
}

/// What stands where it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Markup {
    /// `<!DOCTYPE …>`
    #[error("a DOCTYPE")]
    DocType,
    /// `<?name …?>`
    #[error("a processing instruction")]
    Instruction,
    /// `<?xml …?>`
    #[error("an XML declaration")]
    Declaration,
    /// Text that is not white space.
    #[error("text")]
    Text,
    /// `<!-- … -->`
    #[error("a comment")]
    Comment,
    /// `<name>`
    #[error("an element")]
    Element,
    /// `</name>`
    #[error("an end tag")]
    EndTag,
}

/// Where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Position {
    /// Before the root element.
    #[error("before the root element")]
    Before,
    /// In the root element, between its children.
    #[error("between the fields")]
    Between,
    /// In this field.
    #[error("inside {0}")]
    Inside(String),
    /// After the root element.
    #[error("after the root element")]
    After,
}

impl XmlError {
    /// What is wrong, in Chinese. It quotes field names and positions, and no values.
    #[must_use]
    pub fn chinese(&self) -> String {
        match self {
            Self::Early => "请求体不完整: XML 提前结束".to_owned(),
            Self::IllFormed { at, .. } => format!("请求体不是正确的 XML: 第 {at} 字节附近有语法错误"),
            Self::Forbidden(character) => format!(
                "请求体含有 XML 1.0 不允许的字符 U+{:04X}: 请删除该字符",
                u32::from(*character)
            ),
            Self::ForbiddenIn { field, character } => format!(
                "{} 含有 XML 1.0 不允许的字符 U+{:04X}: 请删除该字符",
                named(field),
                u32::from(*character)
            ),
            Self::Charset => "请求体的 XML 声明了其他编码: 须为 UTF-8".to_owned(),
            Self::Attributes => "请求体的 XML 元素不能有属性: 请删除属性".to_owned(),
            Self::Name => {
                "请求体的 XML 元素名称不正确: 须以字母或 _ 开头, 其后只能是字母、数字、_、- 或 .".to_owned()
            }
            Self::Elements(field) => format!("{} 须为文本: 不能包含子元素", named(field)),
            Self::Entity(field) => format!(
                "{} 含有未定义的实体: 只能使用 &lt; &gt; &amp; &apos; &quot;",
                named(field)
            ),
            Self::Reference(field) => format!("{} 含有不正确的字符引用: 须形如 &#20013;", named(field)),
            Self::Unexpected(markup, place) => {
                let place = match place {
                    Position::Before => "请求体的 XML 根元素之前".to_owned(),
                    Position::Between => "请求体的 XML 字段之间".to_owned(),
                    Position::Inside(field) => format!("{} 内", named(field)),
                    Position::After => "请求体的 XML 根元素之后".to_owned(),
                };
                format!("{place}不能有{}: 请删除", markup.chinese())
            }
            Self::Fields(error) => error.chinese(),
        }
    }
}

impl Markup {
    fn chinese(self) -> &'static str {
        match self {
            Self::DocType => " DOCTYPE",
            Self::Instruction => "处理指令",
            Self::Declaration => " XML 声明",
            Self::Text => "文本",
            Self::Comment => "注释",
            Self::Element => "元素",
            Self::EndTag => "结束标签",
        }
    }
}
