// A loop over nearly equal pieces of [0, count), one a thread.
#pragma once

#include "simd.h"
#include "threads.h"

namespace fastlstm::FASTLSTM_ISA {

// Elements below which waking another thread costs more than it brings.
inline constexpr Index kSmallLoop = 64 * 1024;

// body(Range), or body(Range, team) of a loop that stops when its team is to, on as many threads as `elements` of work
// are worth; a piece begins at a multiple of `grain`.
template <class Body>
void parallel_pieces(Index count, Index grain, Index elements, const Body& body) {
  struct Context {
    Index grains, count, grain;
    const Body& body;
  };
  Context context{ceil_div(count, grain), count, grain, body};
  const int threads = static_cast<int>(min_of(context.grains, 1 + elements / kSmallLoop));
  run_team(
      threads,
      [](void* c, Team& team) {
        const Context& loop = *static_cast<const Context*>(c);
        const Range own = piece(loop.grains, team.member(), team.size());
        const Range elements{own.begin * loop.grain, min_of(own.end * loop.grain, loop.count)};
        if constexpr (requires { loop.body(elements, team); }) {
          loop.body(elements, team);
        } else {
          loop.body(elements);
        }
      },
      &context);
}

}  // namespace fastlstm::FASTLSTM_ISA
