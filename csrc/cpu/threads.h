// The package's own threads: one pool a process, made when it is first needed.
//
// A region runs a function on a team of threads at once (the caller is member 0). Work is split so that every output
// element is computed in the same way for any team size, so the size may be chosen freely: if the pool is busy with
// another Python thread's region, a region runs on its caller alone.
#pragma once

#include <cstddef>

namespace fastlstm {

class TeamState;
class StopRequest;

class Team {
 public:
  Team(int member, int size, TeamState* state, StopRequest* request)
      : member_(member), size_(size), state_(state), request_(request) {}
  int member() const { return member_; }
  int size() const { return size_; }
  // Waits until every member has come here; what each wrote before is then seen by all. False, for all of them, if the
  // region is to stop: they leave their loop, and nobody will look at the results.
  bool wait();
  // Whether the region is to stop. Members hear of it at different times: who leaves a loop for it must not leave out a
  // wait() of the others.
  bool stopped() const;

  // Items 0 .. count - 1 that any member may do, fewer than 2^32: every member deals them before a wait() and then
  // takes one after the other until it gets -1, and deals again only behind another wait(). All get -1 once the region
  // is to stop.
  void deal(std::ptrdiff_t count);
  // Work stealing: whoever has done an equal share helps those who are slower, because their core is, or because
  // another process has it.
  std::ptrdiff_t take();

 private:
  int member_;
  int size_;
  TeamState* state_;                   // null in a team of one
  StopRequest* request_;               // of the caller
  std::ptrdiff_t next_ = 0, end_ = 0;  // items of a team of one
};

using Region = void (*)(void* context, Team& team);

// Runs region on at most `threads` threads, no more than set_num_threads allows and the caller has cores, and on the
// caller alone while other processes keep the cores busy. Does not throw if threads cannot be made: the team is then
// smaller. Throws Stopped where the region was to stop, when all its members have.
void run_team(int threads, Region region, void* context);

struct Stopped {};

// What a region's caller is asked ten times a second while it waits for other members or takes items: whether to stop,
// because somebody has pressed Ctrl-C. Regions that change arrays in place do neither, and are never cut short.
void set_should_stop(bool (*should_stop)());

void set_num_threads(int threads);
int num_threads();

// How many threads a region of the caller gets now that could use `threads`: runs an empty one.
int team_size(int threads);

// An OpenMP runtime that the process has, by the functions that GNU's, LLVM's and Intel's all have.
struct OpenMp {
  void (*parallel)(void (*body)(void* data), void* data, unsigned threads, unsigned flags);  // GOMP_parallel
  int (*thread_num)(), (*num_threads)(), (*max_threads)(), (*in_parallel)();                 // omp_get_...
};

// From now on regions run on its threads, on no more than it has, where that is more than one: waiting threads of the
// two do not take the cores from each other then. A forked child, which its threads are not in, has its own again.
void run_on(const OpenMp& runtime);

// Teams of any size, whatever cores there are and however busy they are: for tests.
void set_teams_always(bool always);

}  // namespace fastlstm
