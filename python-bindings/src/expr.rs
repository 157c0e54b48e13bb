//! Expressions: what columns are computed of. `python/windrow/_expr.py` gives them operators, names and namespaces. Next: `frame.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, InList, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{
    AggregateUDF, Between, Case, Like, Operator, ScalarUDF, WindowFrame, WindowFrameBound, WindowFrameUnits,
    WindowFunctionDefinition, WindowUDF, binary_expr, cast, try_cast,
};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use pyo3_arrow::PyDataType;
use pyo3_arrow::ffi::to_schema_pycapsule;
use windrow::frame::{self, ScalarValue, SortExpr};
use windrow::{Error, ErrorKind};

use crate::error::raise;
use crate::parameters;

/// A key of an order: an expression, whether it ascends, and whether nulls come first.
pub(crate) type Key<'py> = (PyRef<'py, Expr>, bool, bool);

/// The keys of an order.
pub(crate) fn order(keys: &[Key<'_>]) -> Vec<SortExpr> {
    keys.iter().map(|(key, ascending, nulls_first)| key.inner.clone().sort(*ascending, *nulls_first)).collect()
}

/// An expression over a frame's columns.
#[pyclass(module = "windrow._windrow", frozen)]
#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub(crate) inner: frame::Expr,
}

impl From<frame::Expr> for Expr {
    fn from(inner: frame::Expr) -> Self {
        Self { inner }
    }
}

#[pymethods]
impl Expr {
    /// The column of this name, as it is.
    #[staticmethod]
    fn column(name: &str) -> Self {
        frame::col(name).into()
    }

    /// What a join's condition calls a column of the frame on its left, or its right.
    #[staticmethod]
    fn of_side(name: &str, right: bool) -> Self {
        if right { frame::right(name).into() } else { frame::left(name).into() }
    }

    /// A value of Python's.
    #[staticmethod]
    fn literal(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let array = parameters::value(value)?;
        let value = ScalarValue::try_from_array(&array, 0).map_err(|error| failed(value.py(), &error))?;
        Ok(frame::lit(value).into())
    }

    /// A function by its name in SQL: of values, of groups, or of windows.
    #[staticmethod]
    #[pyo3(signature = (name, arguments, distinct=false, order_by=Vec::new()))]
    fn call(
        py: Python<'_>,
        name: &str,
        arguments: Vec<PyRef<'_, Self>>,
        distinct: bool,
        order_by: Vec<Key<'_>>,
    ) -> PyResult<Self> {
        let args = arguments.iter().map(|argument| argument.inner.clone()).collect();
        let made = match functions().get(name) {
            Some(Function::Scalar(function)) => function.call(args),
            Some(Function::Aggregate(function)) => {
                let order = order(&order_by);
                frame::Expr::AggregateFunction(AggregateFunction::new_udf(
                    Arc::clone(function),
                    args,
                    distinct,
                    None,
                    order,
                    None,
                ))
            }
            Some(Function::Window(function)) => {
                let function = WindowFunctionDefinition::WindowUDF(Arc::clone(function));
                frame::Expr::WindowFunction(Box::new(WindowFunction::new(function, args)))
            }
            None => {
                let near = windrow_core::error::nearest(name, functions().keys().map(String::as_str));
                let error = Error::new(ErrorKind::NotFound, format!("there is no function '{name}'")).with_suggestion(near);
                return Err(raise(py, &error, None));
            }
        };
        Ok(made.into())
    }

    /// The first value whose condition is true, else the last one.
    #[staticmethod]
    #[pyo3(signature = (conditions, values, otherwise=None))]
    fn case(conditions: Vec<PyRef<'_, Self>>, values: Vec<PyRef<'_, Self>>, otherwise: Option<PyRef<'_, Self>>) -> Self {
        let branches = conditions.iter().zip(&values);
        let branches = branches.map(|(when, then)| (Box::new(when.inner.clone()), Box::new(then.inner.clone()))).collect();
        frame::Expr::Case(Case::new(None, branches, otherwise.map(|value| Box::new(value.inner.clone())))).into()
    }

    /// An operator of SQL between two values.
    fn binary(&self, py: Python<'_>, operator: &str, other: &Self) -> PyResult<Self> {
        let operator = match operator {
            "+" => Operator::Plus,
            "-" => Operator::Minus,
            "*" => Operator::Multiply,
            "/" => Operator::Divide,
            "%" => Operator::Modulo,
            "==" => Operator::Eq,
            "!=" => Operator::NotEq,
            "<" => Operator::Lt,
            "<=" => Operator::LtEq,
            ">" => Operator::Gt,
            ">=" => Operator::GtEq,
            "and" => Operator::And,
            "or" => Operator::Or,
            "is distinct from" => Operator::IsDistinctFrom,
            "is not distinct from" => Operator::IsNotDistinctFrom,
            "||" => Operator::StringConcat,
            "&" => Operator::BitwiseAnd,
            "|" => Operator::BitwiseOr,
            "^" => Operator::BitwiseXor,
            other => return Err(raise(py, &Error::internal(format!("no operator '{other}'")), None)),
        };
        Ok(binary_expr(self.inner.clone(), operator, other.inner.clone()).into())
    }

    fn negated(&self) -> Self {
        frame::Expr::Negative(Box::new(self.inner.clone())).into()
    }

    fn inverted(&self) -> Self {
        frame::Expr::Not(Box::new(self.inner.clone())).into()
    }

    fn is_null(&self) -> Self {
        self.inner.clone().is_null().into()
    }

    fn is_not_null(&self) -> Self {
        self.inner.clone().is_not_null().into()
    }

    fn alias(&self, name: &str) -> Self {
        self.inner.clone().unalias().alias(name).into()
    }

    /// Another type; where a value does not fit, an error, or null if `strict` is not set.
    fn cast(&self, to: PyDataType, strict: bool) -> Self {
        let to = to.into_inner();
        let value = self.inner.clone();
        if strict { cast(value, to).into() } else { try_cast(value, to).into() }
    }

    fn is_in(&self, values: Vec<PyRef<'_, Self>>) -> Self {
        let list = values.iter().map(|value| value.inner.clone()).collect();
        frame::Expr::InList(InList::new(Box::new(self.inner.clone()), list, false)).into()
    }

    fn between(&self, low: &Self, high: &Self) -> Self {
        let of = |value: &Self| Box::new(value.inner.clone());
        frame::Expr::Between(Between::new(of(self), false, of(low), of(high))).into()
    }

    fn like(&self, pattern: &Self, ignore_case: bool) -> Self {
        let of = |value: &Self| Box::new(value.inner.clone());
        frame::Expr::Like(Like::new(false, of(self), of(pattern), None, ignore_case)).into()
    }

    /// The aggregates in it over the rows alone for which `condition` is true.
    fn only_where(&self, py: Python<'_>, condition: &Self) -> PyResult<Self> {
        let filtered = self.inner.clone().transform_down(|part| {
            Ok(match part {
                frame::Expr::AggregateFunction(mut aggregate) => {
                    let filter = aggregate.params.filter.take();
                    let both = filter.map_or_else(|| condition.inner.clone(), |filter| filter.and(condition.inner.clone()));
                    aggregate.params.filter = Some(Box::new(both));
                    Transformed::new(frame::Expr::AggregateFunction(aggregate), true, TreeNodeRecursion::Jump)
                }
                part => Transformed::no(part),
            })
        });
        filtered.data().map(Self::from).map_err(|error| failed(py, &error))
    }

    /// The aggregates and functions of windows in it over the rows that are equal in `partition_by`, in an order. `rows` are the first and the last
    /// row of each window, counted from its own; `None` is the end.
    #[pyo3(signature = (partition_by, order_by, rows=None))]
    fn over(
        &self,
        py: Python<'_>,
        partition_by: Vec<PyRef<'_, Self>>,
        order_by: Vec<Key<'_>>,
        rows: Option<(Option<i64>, Option<i64>)>,
    ) -> PyResult<Self> {
        let partition: Vec<frame::Expr> = partition_by.iter().map(|key| key.inner.clone()).collect();
        let order = order(&order_by);
        let window = match rows {
            Some((first, last)) => WindowFrame::new_bounds(WindowFrameUnits::Rows, bound(first, false), bound(last, true)),
            None => WindowFrame::new((!order.is_empty()).then_some(false)),
        };
        let over = |part: frame::Expr| {
            let (fun, mut params) = match part {
                frame::Expr::AggregateFunction(AggregateFunction { func, params }) => {
                    let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = params;
                    let (partition_by, window_frame) = (Vec::new(), window.clone());
                    let params =
                        WindowFunctionParams { args, partition_by, order_by, window_frame, filter, null_treatment, distinct };
                    (WindowFunctionDefinition::AggregateUDF(func), params)
                }
                frame::Expr::WindowFunction(function) => {
                    let WindowFunction { fun, params } = *function;
                    (fun, params)
                }
                part => return Ok(Transformed::no(part)),
            };
            params.partition_by.clone_from(&partition);
            params.window_frame = window.clone();
            if !order.is_empty() {
                params.order_by.clone_from(&order);
            }
            let function = frame::Expr::WindowFunction(Box::new(WindowFunction { fun, params }));
            Ok(Transformed::new(function, true, TreeNodeRecursion::Jump))
        };
        self.inner.clone().transform_down(over).data().map(Self::from).map_err(|error| failed(py, &error))
    }

    fn __repr__(&self) -> String {
        self.inner.to_string()
    }
}

fn bound(rows: Option<i64>, is_end: bool) -> WindowFrameBound {
    let number = |rows: u64| ScalarValue::UInt64(Some(rows));
    match rows {
        None if is_end => WindowFrameBound::Following(ScalarValue::UInt64(None)),
        None => WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
        Some(0) => WindowFrameBound::CurrentRow,
        Some(rows) if rows < 0 => WindowFrameBound::Preceding(number(rows.unsigned_abs())),
        Some(rows) => WindowFrameBound::Following(number(rows.unsigned_abs())),
    }
}

fn failed(py: Python<'_>, error: &datafusion::error::DataFusionError) -> PyErr {
    raise(py, &Error::new(ErrorKind::InvalidQuery, error.strip_backtrace()), None)
}

/// A function of SQL.
enum Function {
    Scalar(Arc<ScalarUDF>),
    Aggregate(Arc<AggregateUDF>),
    Window(Arc<WindowUDF>),
}

/// The functions of SQL by their names and other names.
fn functions() -> &'static BTreeMap<String, Function> {
    static FUNCTIONS: OnceLock<BTreeMap<String, Function>> = OnceLock::new();
    FUNCTIONS.get_or_init(|| {
        let mut all = BTreeMap::new();
        for function in datafusion::functions_window::all_default_window_functions() {
            let names = function.aliases().iter().cloned().chain([function.name().to_owned()]).collect::<Vec<_>>();
            all.extend(names.into_iter().map(|name| (name, Function::Window(Arc::clone(&function)))));
        }
        for function in datafusion::functions_aggregate::all_default_aggregate_functions() {
            let names = function.aliases().iter().cloned().chain([function.name().to_owned()]).collect::<Vec<_>>();
            all.extend(names.into_iter().map(|name| (name, Function::Aggregate(Arc::clone(&function)))));
        }
        let nested = datafusion::functions_nested::all_default_nested_functions();
        for function in datafusion::functions::all_default_functions().into_iter().chain(nested) {
            let names = function.aliases().iter().cloned().chain([function.name().to_owned()]).collect::<Vec<_>>();
            all.extend(names.into_iter().map(|name| (name, Function::Scalar(Arc::clone(&function)))));
        }
        all
    })
}

/// The names of the functions of SQL, with their kinds.
#[pyfunction]
pub(crate) fn function_names() -> Vec<(String, &'static str)> {
    let kind = |function: &Function| match function {
        Function::Scalar(_) => "scalar",
        Function::Aggregate(_) => "aggregate",
        Function::Window(_) => "window",
    };
    functions().iter().map(|(name, function)| (name.clone(), kind(function))).collect()
}

/// The type that a text means, as Arrow writes it, as a capsule that Arrow's libraries read.
#[pyfunction]
pub(crate) fn parse_type<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyCapsule>> {
    let parsed = text.parse::<DataType>().map_err(|source| {
        let error = Error::new(ErrorKind::InvalidQuery, format!("'{text}' is no type: {source}"));
        raise(py, &error.with_help("write int64, float64, string, bool, date, timestamp or decimal(10, 2)"), None)
    })?;
    Ok(to_schema_pycapsule(py, &parsed)?)
}

/// Whether an aggregate is in an expression, other than over a window.
#[pyfunction]
pub(crate) fn has_aggregate(expression: PyRef<'_, Expr>) -> bool {
    let mut found = false;
    let _infallible = expression.inner.apply(|part| {
        Ok(match part {
            frame::Expr::AggregateFunction(_) => {
                found = true;
                TreeNodeRecursion::Stop
            }
            frame::Expr::WindowFunction(_) => TreeNodeRecursion::Jump,
            _ => TreeNodeRecursion::Continue,
        })
    });
    found
}
