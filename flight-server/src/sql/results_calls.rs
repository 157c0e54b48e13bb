//! Calls about results that are polled and listed. Next: `handles.rs`.

use arrow_flight::{Criteria, FlightDescriptor, FlightInfo, PollInfo};
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::SqlService;

impl SqlService {
    /// PollFlightInfo.
    pub(super) async fn poll(&self, _request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        Err(Status::unimplemented("a statement cannot be polled; use GetFlightInfo"))
    }

    /// ListFlights.
    pub(super) async fn list(
        &self,
        _request: Request<Criteria>,
    ) -> Result<Response<BoxStream<'static, Result<FlightInfo, Status>>>, Status> {
        Err(Status::unimplemented("results are not listed"))
    }
}
