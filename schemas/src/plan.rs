//! Plans how the datum of one schema becomes the datum of another.

use apache_avro::schema::{Alias, EnumSchema, FixedSchema, Name, RecordField};

use crate::Incompatibility;
use crate::default;
use crate::node::{Branches, Fields, Node, Shape};

/// What to do at one place of the writer's datum.
pub(crate) enum Step {
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
    /// For each of the writer's symbols its index in the reader's enum.
    Symbols(Vec<Result<usize, Incompatibility>>),
    Items(Box<Self>),
    Entries(Box<Self>),
    FromUnion(Vec<Self>),
    IntoUnion(usize, Box<Self>),
    Record(Vec<Field>),
    /// The fields come in another order: all are read before any is written.
    Reordered {
        read: Vec<Self>,
        write: Vec<Source>,
    },
    /// The reader has no place for what the writer may have put here.
    Never(Incompatibility),
}

/// What to do for one field, where both schemas have the same order.
pub(crate) enum Field {
    Copy(Step),
    Skip(Step),
    Default(Vec<u8>),
}

/// Where a field of the reader comes from.
pub(crate) enum Source {
    /// The writer's field of this index.
    Written(usize),
    Default(Vec<u8>),
}

/// How well a branch of a union suits: the least is the best.
#[derive(PartialEq, PartialOrd)]
struct Rank {
    incomplete: bool,
    promoted: bool,
}

/// Collects every reason why a plan has gaps.
#[derive(Default)]
pub(crate) struct Planner {
    path: Vec<&'static str>,
    reasons: Vec<Incompatibility>,
}

impl Planner {
    pub(crate) fn into_reasons(self) -> Vec<Incompatibility> {
        self.reasons
    }

    pub(crate) fn step(&mut self, writer: Node, reader: Node) -> Step {
        if let (Some(written), Some(read)) = (writer.logical(), reader.logical())
            && written != read
        {
            // Avro itself would take milliseconds for microseconds here.
            return self.never(format!("{written} was written, {read} is read"));
        }
        match (writer.shape(), reader.shape()) {
            (Shape::Union(branches), _) => {
                Step::FromUnion(branches.iter().map(|branch| self.step(branch, reader)).collect())
            }
            (_, Shape::Union(branches)) => self.branch(writer, branches),
            (Shape::Null, Shape::Null) => Step::Nothing,
            (Shape::Boolean, Shape::Boolean) => Step::Boolean,
            (Shape::Int, Shape::Int | Shape::Long) => Step::Int,
            (Shape::Long, Shape::Long) => Step::Long,
            (Shape::Int | Shape::Long, Shape::Float) => Step::LongToFloat,
            (Shape::Int | Shape::Long, Shape::Double) => Step::LongToDouble,
            (Shape::Float, Shape::Float) => Step::Take(size_of::<f32>()),
            (Shape::Float, Shape::Double) => Step::FloatToDouble,
            (Shape::Double, Shape::Double) => Step::Take(size_of::<f64>()),
            (Shape::Bytes, Shape::Bytes) => Step::Bytes,
            (Shape::Bytes | Shape::String, Shape::Bytes | Shape::String) => Step::Text,
            (Shape::Fixed(written), Shape::Fixed(read)) => self.fixed(written, read),
            (Shape::Enum(written), Shape::Enum(read)) => self.symbols(written, read),
            (Shape::Array(written), Shape::Array(read)) => {
                Step::Items(Box::new(self.step(written, read)))
            }
            (Shape::Map(written), Shape::Map(read)) => {
                Step::Entries(Box::new(self.step(written, read)))
            }
            (Shape::Record(written), Shape::Record(read)) => self.record(written, read),
            // The specification's list is closed: no other pair resolves.
            (_, _) => self.never(format!("{writer} was written, {reader} is read")),
        }
    }

    fn never(&mut self, reason: String) -> Step {
        Step::Never(self.note(reason))
    }

    fn note(&mut self, reason: String) -> Incompatibility {
        let noted = Incompatibility { field: self.path.join("."), reason };
        self.reasons.push(noted.clone());
        noted
    }

    /// Picks the first branch that is the same type, else the first that takes it by promotion.
    fn branch(&mut self, writer: Node, branches: Branches) -> Step {
        let mut taken = None;
        for (index, branch) in branches.iter().enumerate() {
            let mut trial = Self { path: self.path.clone(), reasons: Vec::new() };
            let step = trial.step(writer, branch);
            let rank = Rank {
                incomplete: !trial.reasons.is_empty(),
                promoted: !writer.shape().is_like(&branch.shape()),
            };
            if matches!(step, Step::Never(_)) {
                continue;
            }
            if taken.as_ref().is_none_or(|(best, _, _)| rank < *best) {
                taken = Some((rank, Step::IntoUnion(index, Box::new(step)), trial.reasons));
            }
        }
        let Some((_, step, mut reasons)) = taken else {
            let read: Vec<_> = branches.iter().map(|branch| branch.to_string()).collect();
            return self.never(format!("{writer} was written, [{}] is read", read.join(", ")));
        };
        self.reasons.append(&mut reasons);
        step
    }

    fn fixed(&mut self, written: &FixedSchema, read: &FixedSchema) -> Step {
        if !same_name(&written.name, &read.name, read.aliases.as_deref()) {
            return self
                .never(format!("fixed {} was written, {} is read", written.name, read.name));
        }
        if written.size != read.size {
            let (written, read) = (written.size, read.size);
            return self.never(format!("{written} bytes were written, {read} are read"));
        }
        Step::Take(read.size)
    }

    fn symbols(&mut self, written: &EnumSchema, read: &EnumSchema) -> Step {
        if !same_name(&written.name, &read.name, read.aliases.as_deref()) {
            return self.never(format!("enum {} was written, {} is read", written.name, read.name));
        }
        let place = |symbol: &String| read.symbols.iter().position(|known| known == symbol);
        let fallback = read.default.as_ref().and_then(place);
        let places = written.symbols.iter().map(|symbol| {
            let place = place(symbol).or(fallback);
            let reason = || format!("symbol {symbol} may have been written, and is not known");
            place.ok_or_else(|| self.note(reason()))
        });
        Step::Symbols(places.collect())
    }

    fn record(&mut self, written: Fields, read: Fields) -> Step {
        let aliases = read.record.aliases.as_deref();
        if !same_name(&written.record.name, &read.record.name, aliases) {
            let (written, read) = (&written.record.name, &read.record.name);
            return self.never(format!("record {written} was written, {read} is read"));
        }
        let mut steps: Vec<Option<Step>> = written.iter().map(|_| None).collect();
        let sources = read.iter().map(|(field, node)| {
            self.path.push(&field.name);
            let source = self.source(written, (field, node), &mut steps);
            self.path.pop();
            source
        });
        // Every field is looked at, so that every reason is found, before the first gap counts.
        let sources: Vec<_> = sources.collect();
        match sources.into_iter().collect::<Result<Vec<_>, _>>() {
            Ok(sources) => assemble(written, steps, sources),
            Err(gap) => Step::Never(gap),
        }
    }

    /// Where a field comes from: what was written under its name, or one of its aliases, or its
    /// default.
    fn source(
        &mut self,
        written: Fields,
        (field, node): (&RecordField, Node),
        steps: &mut [Option<Step>],
    ) -> Result<Source, Incompatibility> {
        let mut names = std::iter::once(&field.name).chain(&field.aliases);
        let found = names.find_map(|name| written.position(name));
        if let Some(index) = found
            && let Some((_, written)) = written.get(index)
            && let Some(step @ None) = steps.get_mut(index)
        {
            *step = Some(self.step(written, node));
            return Ok(Source::Written(index));
        }
        let Some(value) = &field.default else {
            let reason = format!("{node} is read, nothing was written, and there is no default");
            return Err(self.note(reason));
        };
        let mut datum = Vec::new();
        let encoded = default::encode(node, value, &mut datum);
        encoded.map(|()| Source::Default(datum)).map_err(|reason| self.note(reason))
    }
}

fn same_name(written: &Name, read: &Name, aliases: Option<&[Alias]>) -> bool {
    // Namespaces do not count; that is the specification's rule.
    let aliases = aliases.unwrap_or_default();
    written.name() == read.name() || aliases.iter().any(|alias| alias.name() == written.name())
}

/// Joins what is done with each written field (`None`: nobody reads it) with the order of reading.
fn assemble(written: Fields, steps: Vec<Option<Step>>, sources: Vec<Source>) -> Step {
    let places = sources.iter().filter_map(|source| match source {
        Source::Written(index) => Some(*index),
        Source::Default(_) => None,
    });
    if !places.is_sorted() {
        let nodes = written.iter().map(|(_, node)| node);
        let read =
            steps.into_iter().zip(nodes).map(|(step, node)| step.unwrap_or_else(|| skip(node)));
        return Step::Reordered { read: read.collect(), write: sources };
    }
    let mut written = written.iter().map(|(_, node)| node).zip(steps);
    let mut fields = Vec::new();
    for source in sources {
        match source {
            Source::Default(datum) => fields.push(Field::Default(datum)),
            Source::Written(_) => copy_next(&mut written, &mut fields),
        }
    }
    fields.extend(written.map(|(node, _)| Field::Skip(skip(node))));
    Step::Record(fields)
}

/// Skips up to the next field that is read, and copies that.
fn copy_next(written: &mut impl Iterator<Item = (Node, Option<Step>)>, fields: &mut Vec<Field>) {
    for (node, step) in written {
        match step {
            Some(step) => return fields.push(Field::Copy(step)),
            None => fields.push(Field::Skip(skip(node))),
        }
    }
}

/// Read as itself, for nobody.
fn skip(node: Node) -> Step {
    Planner::default().step(node, node)
}
