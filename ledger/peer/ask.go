package peer

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// askTimeout is how long an answer may take.
const askTimeout = 5 * time.Second

// errUnanswered means that a member did not answer, or not now; that alone is
// no fault.
var errUnanswered = errors.New("no answer")

// errOccupied means that a member said that it is busy. It is an errUnanswered.
var errOccupied = fmt.Errorf("%w: busy", errUnanswered)

// First byte of an answer.
const (
	answerOK   = 0
	answerBusy = 1 // ask again later
)

// asks are the requests that wait for their answers.
type asks struct {
	inbox string // the subject of an answer is this and a random token

	mu      sync.Mutex // guards what follows, and orders requests
	waiting map[string]chan *nats.Msg
}

func (a *asks) init(inbox string) {
	a.inbox, a.waiting = inbox, map[string]chan *nats.Msg{}
}

// answer passes a message on to who waits for it.
func (a *asks) answer(msg *nats.Msg) {
	a.mu.Lock()
	c := a.waiting[msg.Subject]
	delete(a.waiting, msg.Subject)
	a.mu.Unlock()
	if c != nil {
		c <- msg // it has room for one, and there is one
	}
}

// ask sends a request to m and returns the answer's body. The error wraps
// errUnanswered, errBody or that of ctx.
func (p *Peers) ask(ctx context.Context, m *member, k kind, body []byte) ([]byte, error) {
	var token [12]byte
	_, _ = rand.Read(token[:]) // never fails
	reply := p.asks.inbox + hex.EncodeToString(token[:])
	answered := make(chan *nats.Msg, 1)
	p.asks.mu.Lock()
	p.asks.waiting[reply] = answered
	request := p.signer.seal(k, m.PublicKey, []byte(reply), body)
	err := p.conn.PublishRequest(p.prefix+".peer."+m.PublicKey.SubjectID(), reply, request)
	p.asks.mu.Unlock()
	defer p.asks.giveUp(reply)
	if err != nil {
		return nil, p.unanswered(m, err)
	}
	timer := time.NewTimer(askTimeout)
	defer timer.Stop()
	select {
	case msg := <-answered:
		return p.readAnswer(m, request, msg)
	case <-timer.C:
		return nil, p.unanswered(m, context.DeadlineExceeded)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (a *asks) giveUp(reply string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, reply)
}

func (p *Peers) unanswered(m *member, err error) error {
	m.count(func(c *MemberCounts) { c.Unanswered++ })
	return fmt.Errorf("%w of %s: %w", errUnanswered, m.Name, err)
}

// readAnswer returns the body of an answer that m signed for this request.
func (p *Peers) readAnswer(m *member, request []byte, msg *nats.Msg) ([]byte, error) {
	if len(msg.Data) == 0 { // what NATS says when nobody listens
		return nil, p.unanswered(m, nats.ErrNoResponders)
	}
	f, err := parseFrame(msg.Data)
	asked := frame{bytes: request}
	if err != nil || f.kind != kindAnswer || f.sender != m.PublicKey ||
		!p.signer.signed(f, p.signer.public, asked.signature()) || len(f.body) == 0 {
		p.counted.strange.Add(1)
		return nil, p.unanswered(m, errFrame)
	}
	m.mu.Lock()
	m.heard = time.Now()
	m.mu.Unlock()
	if f.body[0] != answerOK {
		return nil, fmt.Errorf("%s: %w", m.Name, errOccupied)
	}
	return f.body[1:], nil
}

// answerTo sends the answer to a request.
func (p *Peers) answerTo(to network.PublicKey, request frame, reply string, status byte, body []byte) {
	answer := p.signer.seal(kindAnswer, to, request.signature(), append([]byte{status}, body...))
	if err := p.conn.Publish(reply, answer); err != nil {
		p.log.Debug("answer not sent", "err", err)
	}
}
