//! Calls of Python functions in expressions: place holders that no engine evaluates. Next: `extract.rs`.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, TypeSignature, Volatility, WindowFunctionDefinition,
};
use windrow_core::Error;

use super::PythonFunction;
use crate::diagnose::ours;

/// A function of columns, or of groups.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    function: Arc<PythonFunction>,
    signature: Signature,
}

impl Marker {
    /// Volatile, so that nobody tries to compute it while planning.
    fn new(function: Arc<PythonFunction>) -> Self {
        let arguments = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
        Self { function, signature: Signature::one_of(arguments, Volatility::Volatile) }
    }

    /// The type of what it gives.
    fn value_type(&self) -> Result<DataType> {
        Ok(self.function.value()?.data_type().clone())
    }

    fn misplaced<T>(&self) -> Result<T> {
        let name = &self.function.name;
        let error = Error::unsupported(format!("the Python function '{name}' cannot be called in this place"));
        Err(ours(error.with_help("compute it in a column of a subquery first")))
    }
}

/// What stands for a function of columns in DataFusion's expressions.
pub(crate) fn marker(function: Arc<PythonFunction>) -> ScalarUDF {
    ScalarUDF::new_from_impl(Marker::new(function))
}

/// What stands for a function of groups in DataFusion's expressions.
pub(crate) fn marker_aggregate(function: Arc<PythonFunction>) -> AggregateUDF {
    AggregateUDF::new_from_impl(Marker::new(function))
}

/// A call of a function of columns.
#[must_use]
pub fn call_python(function: Arc<PythonFunction>, arguments: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(marker(function)), arguments))
}

/// A call of a function of groups.
#[must_use]
pub fn call_python_aggregate(function: Arc<PythonFunction>, arguments: Vec<Expr>) -> Expr {
    let function = Arc::new(marker_aggregate(function));
    Expr::AggregateFunction(AggregateFunction::new_udf(function, arguments, false, None, vec![], None))
}

/// The Python function that a function of DataFusion's stands for.
pub(crate) fn function_of(function: &ScalarUDF) -> Option<&Arc<PythonFunction>> {
    let inner: &dyn Any = function.inner().as_ref();
    inner.downcast_ref::<Marker>().map(|marker| &marker.function)
}

/// The Python function that an aggregate of DataFusion's stands for.
pub(crate) fn aggregate_of(function: &AggregateUDF) -> Option<&Arc<PythonFunction>> {
    let inner: &dyn Any = function.inner().as_ref();
    inner.downcast_ref::<Marker>().map(|marker| &marker.function)
}

/// Whether an expression, without those in it, is a call of a Python function.
pub(crate) fn is_python(expression: &Expr) -> bool {
    match expression {
        Expr::ScalarFunction(call) => function_of(&call.func).is_some(),
        Expr::AggregateFunction(call) => aggregate_of(&call.func).is_some(),
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => aggregate_of(function).is_some(),
            WindowFunctionDefinition::WindowUDF(_) => false,
        },
        _ => false,
    }
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        &self.function.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        self.value_type()
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(self.function.value()?.as_ref().clone().with_name(&self.function.name)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.misplaced()
    }
}

impl AggregateUDFImpl for Marker {
    fn name(&self) -> &str {
        &self.function.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        self.value_type()
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.misplaced()
    }
}
