//! Resolves a pair of schemas into the steps that rewrite the writer's datum for the reader.

use apache_avro::schema::{Alias, EnumSchema, FixedSchema, Name, RecordField};

use crate::Incompatibility;
use crate::avro_types::{Branches, Fields, Node, Shape};
use crate::default;

/// The step for one value of the writer's datum.
pub(crate) enum ResolutionStep {
    Nothing,
    Boolean,
    Int,
    Long,
    LongToFloat,
    LongToDouble,
    FloatToDouble,
    Take(usize),
    Bytes,
    Text,
    /// For each symbol of the writer its index in the reader's enum.
    Symbols(Vec<Result<usize, Incompatibility>>),
    Items(Box<Self>),
    Entries(Box<Self>),
    FromUnion(Vec<Self>),
    IntoUnion(usize, Box<Self>),
    Record(Vec<Field>),
    /// The fields have another order: all are read before any is written.
    Reordered {
        read: Vec<Self>,
        write: Vec<FieldSource>,
    },
    /// The reader cannot represent the value.
    Unresolvable(Incompatibility),
}

/// The step for one field, where both schemas have the same order.
pub(crate) enum Field {
    Copy(ResolutionStep),
    Skip(ResolutionStep),
    Default(Vec<u8>),
}

/// The source of a reader's field.
pub(crate) enum FieldSource {
    /// The writer's field of this index.
    Written(usize),
    Default(Vec<u8>),
}

/// How well a branch of a union matches: the least is the best. Names decide before structure.
#[derive(PartialEq, PartialOrd)]
struct BranchRank {
    name: NameMatch,
    incomplete: bool,
    promoted: bool,
}

/// How the name of a branch matches; types without a name match as those of one short name.
#[derive(PartialEq, PartialOrd)]
enum NameMatch {
    Full,
    Short,
    Alias,
}

/// Resolves schemas, and collects every incompatibility.
#[derive(Default)]
pub(crate) struct Resolver {
    path: Vec<&'static str>,
    reasons: Vec<Incompatibility>,
}

impl Resolver {
    pub(crate) fn into_reasons(self) -> Vec<Incompatibility> {
        self.reasons
    }

    pub(crate) fn step(&mut self, writer: Node, reader: Node) -> ResolutionStep {
        if let (Some(written), Some(read)) = (writer.logical(), reader.logical())
            && written != read
        {
            // Avro itself would read milliseconds as microseconds here.
            return self.unresolvable(format!("{written} was written, {read} is read"));
        }
        match (writer.shape(), reader.shape()) {
            (Shape::Union(branches), _) => ResolutionStep::FromUnion(
                branches.iter().map(|branch| self.step(branch, reader)).collect(),
            ),
            (_, Shape::Union(branches)) => self.branch(writer, branches),
            (Shape::Null, Shape::Null) => ResolutionStep::Nothing,
            (Shape::Boolean, Shape::Boolean) => ResolutionStep::Boolean,
            (Shape::Int, Shape::Int | Shape::Long) => ResolutionStep::Int,
            (Shape::Long, Shape::Long) => ResolutionStep::Long,
            (Shape::Int | Shape::Long, Shape::Float) => ResolutionStep::LongToFloat,
            (Shape::Int | Shape::Long, Shape::Double) => ResolutionStep::LongToDouble,
            (Shape::Float, Shape::Float) => ResolutionStep::Take(size_of::<f32>()),
            (Shape::Float, Shape::Double) => ResolutionStep::FloatToDouble,
            (Shape::Double, Shape::Double) => ResolutionStep::Take(size_of::<f64>()),
            (Shape::Bytes, Shape::Bytes) => ResolutionStep::Bytes,
            (Shape::Bytes | Shape::String, Shape::Bytes | Shape::String) => ResolutionStep::Text,
            (Shape::Fixed(written), Shape::Fixed(read)) => self.fixed(written, read),
            (Shape::Enum(written), Shape::Enum(read)) => self.symbols(written, read),
            (Shape::Array(written), Shape::Array(read)) => {
                ResolutionStep::Items(Box::new(self.step(written, read)))
            }
            (Shape::Map(written), Shape::Map(read)) => {
                ResolutionStep::Entries(Box::new(self.step(written, read)))
            }
            (Shape::Record(written), Shape::Record(read)) => self.record(written, read),
            // The specification resolves no other pair.
            (_, _) => self.unresolvable(format!("{writer} was written, {reader} is read")),
        }
    }

    fn unresolvable(&mut self, reason: String) -> ResolutionStep {
        ResolutionStep::Unresolvable(self.note(reason))
    }

    fn note(&mut self, reason: String) -> Incompatibility {
        let noted = Incompatibility { field: self.path.join("."), reason };
        self.reasons.push(noted.clone());
        noted
    }

    /// Picks the branch of the same full name, then of the same name, then of an alias; of those
    /// the first of the same type, else the first that the type promotes to. The full name decides
    /// even if that branch cannot be read: the value belongs to no other.
    fn branch(&mut self, writer: Node, branches: Branches) -> ResolutionStep {
        let mut taken = None;
        for (index, branch) in branches.iter().enumerate() {
            let mut trial = Self { path: self.path.clone(), reasons: Vec::new() };
            let step = trial.step(writer, branch);
            let rank = BranchRank {
                name: name_match(writer, branch),
                incomplete: !trial.reasons.is_empty(),
                promoted: !writer.shape().is_like(&branch.shape()),
            };
            if matches!(step, ResolutionStep::Unresolvable(_)) && rank.name != NameMatch::Full {
                continue;
            }
            if taken.as_ref().is_none_or(|(best, _, _)| rank < *best) {
                taken =
                    Some((rank, ResolutionStep::IntoUnion(index, Box::new(step)), trial.reasons));
            }
        }
        let Some((_, step, mut reasons)) = taken else {
            let read: Vec<_> = branches.iter().map(|branch| branch.to_string()).collect();
            return self
                .unresolvable(format!("{writer} was written, [{}] is read", read.join(", ")));
        };
        self.reasons.append(&mut reasons);
        step
    }

    fn fixed(&mut self, written: &FixedSchema, read: &FixedSchema) -> ResolutionStep {
        if !same_name(&written.name, &read.name, read.aliases.as_deref()) {
            return self.unresolvable(format!(
                "fixed {} was written, {} is read",
                written.name, read.name
            ));
        }
        if written.size != read.size {
            let (written, read) = (written.size, read.size);
            return self.unresolvable(format!("{written} bytes were written, {read} are read"));
        }
        ResolutionStep::Take(read.size)
    }

    fn symbols(&mut self, written: &EnumSchema, read: &EnumSchema) -> ResolutionStep {
        if !same_name(&written.name, &read.name, read.aliases.as_deref()) {
            return self
                .unresolvable(format!("enum {} was written, {} is read", written.name, read.name));
        }
        let place = |symbol: &String| read.symbols.iter().position(|known| known == symbol);
        let fallback = read.default.as_ref().and_then(place);
        let places = written.symbols.iter().map(|symbol| {
            let place = place(symbol).or(fallback);
            let reason = || format!("symbol {symbol} may have been written, and is not known");
            place.ok_or_else(|| self.note(reason()))
        });
        ResolutionStep::Symbols(places.collect())
    }

    fn record(&mut self, written: Fields, read: Fields) -> ResolutionStep {
        let aliases = read.record.aliases.as_deref();
        if !same_name(&written.record.name, &read.record.name, aliases) {
            let (written, read) = (&written.record.name, &read.record.name);
            return self.unresolvable(format!("record {written} was written, {read} is read"));
        }
        let mut steps: Vec<Option<ResolutionStep>> = written.iter().map(|_| None).collect();
        let sources = read.iter().map(|(field, node)| {
            self.path.push(&field.name);
            let source = self.source(written, (field, node), &mut steps);
            self.path.pop();
            source
        });
        // Resolves every field, to find every reason, before the first gap ends it.
        let sources: Vec<_> = sources.collect();
        match sources.into_iter().collect::<Result<Vec<_>, _>>() {
            Ok(sources) => assemble(written, steps, sources),
            Err(gap) => ResolutionStep::Unresolvable(gap),
        }
    }

    /// The source of a field: the writer's field of its name or one of its aliases, else its
    /// default.
    fn source(
        &mut self,
        written: Fields,
        (field, node): (&RecordField, Node),
        steps: &mut [Option<ResolutionStep>],
    ) -> Result<FieldSource, Incompatibility> {
        let mut names = std::iter::once(&field.name).chain(&field.aliases);
        let found = names.find_map(|name| written.position(name));
        if let Some(index) = found
            && let Some((_, written)) = written.get(index)
            && let Some(step @ None) = steps.get_mut(index)
        {
            *step = Some(self.step(written, node));
            return Ok(FieldSource::Written(index));
        }
        let Some(value) = &field.default else {
            let reason = format!("{node} is read, nothing was written, and there is no default");
            return Err(self.note(reason));
        };
        let mut datum = Vec::new();
        let encoded = default::encode(node, value, &mut datum);
        encoded.map(|()| FieldSource::Default(datum)).map_err(|reason| self.note(reason))
    }
}

fn name_match(written: Node, read: Node) -> NameMatch {
    match (written.full_name(), read.full_name()) {
        (Some(written), Some(read)) if written.fullname(None) == read.fullname(None) => {
            NameMatch::Full
        }
        (Some(written), Some(read)) if written.name() != read.name() => NameMatch::Alias,
        (_, _) => NameMatch::Short,
    }
}

fn same_name(written: &Name, read: &Name, aliases: Option<&[Alias]>) -> bool {
    // The specification compares names without namespaces.
    let aliases = aliases.unwrap_or_default();
    written.name() == read.name() || aliases.iter().any(|alias| alias.name() == written.name())
}

/// Joins the step for each written field (`None`: skip it) with the order of the reader.
fn assemble(
    written: Fields,
    steps: Vec<Option<ResolutionStep>>,
    sources: Vec<FieldSource>,
) -> ResolutionStep {
    let places = sources.iter().filter_map(|source| match source {
        FieldSource::Written(index) => Some(*index),
        FieldSource::Default(_) => None,
    });
    if !places.is_sorted() {
        let nodes = written.iter().map(|(_, node)| node);
        let read =
            steps.into_iter().zip(nodes).map(|(step, node)| step.unwrap_or_else(|| skip(node)));
        return ResolutionStep::Reordered { read: read.collect(), write: sources };
    }
    let mut written = written.iter().map(|(_, node)| node).zip(steps);
    let mut fields = Vec::new();
    for source in sources {
        match source {
            FieldSource::Default(datum) => fields.push(Field::Default(datum)),
            FieldSource::Written(_) => copy_next(&mut written, &mut fields),
        }
    }
    fields.extend(written.map(|(node, _)| Field::Skip(skip(node))));
    ResolutionStep::Record(fields)
}

/// Skips fields up to the next one that is read, and copies that.
fn copy_next(
    written: &mut impl Iterator<Item = (Node, Option<ResolutionStep>)>,
    fields: &mut Vec<Field>,
) {
    for (node, step) in written {
        match step {
            Some(step) => return fields.push(Field::Copy(step)),
            None => fields.push(Field::Skip(skip(node))),
        }
    }
}

/// Reads a value without its result.
fn skip(node: Node) -> ResolutionStep {
    Resolver::default().step(node, node)
}
